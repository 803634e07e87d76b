"""Prepared statements: their handles and the values bound to them. Bounded in number and age; holds no plan and no
result.

A statement without placeholders needs no state: its handle is its SQL text, which some clients send back as a query.
With placeholders the handle is the text behind a comment that makes it unique, because two users may bind different
values to one text; it is still SQL, so that a handle whose values were dropped says so by the engine's own error about
unbound placeholders.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas.serve.flight.errors import invalid
from micromegas.serve.placeholders import number_placeholders

MAX_STATEMENTS = 10_000
MAX_BOUND_BYTES = 64 * 1024 * 1024
KEEP_SECONDS = 3600.0


@dataclass(slots=True)
class _Bound:
    used: float
    size: int = 0
    parameters: Mapping[str, pa.Scalar] = field(default_factory=dict)


class PreparedStatements:
    """Values bound to handles. `clock` gives seconds that never go back. Used from one thread (the event loop's)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bound: OrderedDict[str, _Bound] = OrderedDict()
        self._bytes = 0

    def prepare(self, sql: str) -> str:
        """The handle of a new prepared statement."""
        statement = number_placeholders(sql)
        return f"/* {uuid.uuid4()} */ {statement.sql}" if statement.names else sql

    def bind(self, handle: str, values: pa.RecordBatch | None) -> None:
        """Keeps the one row of `values`: one column per placeholder, in the order of the parameter schema (column names
        are the client's own).

        Dense unions (some clients wrap each value in one) are unwrapped. `None` drops what was bound.
        """
        names = number_placeholders(handle).names
        self.close(handle)
        if values is None:
            return
        if values.num_rows != 1:
            raise invalid(f"a statement takes one row of parameters, not {values.num_rows}")
        if values.num_columns != len(names):
            raise invalid(f"the statement has {len(names)} placeholders, got {values.num_columns} values")
        scalars = {name: _unwrap(column[0]) for name, column in zip(names, values.columns, strict=True)}
        size = int(values.get_total_buffer_size()) + len(handle)
        if size > MAX_BOUND_BYTES:
            raise invalid(f"parameters of {size} bytes are over the limit of {MAX_BOUND_BYTES}")
        self._bound[handle] = _Bound(self._clock(), size, scalars)
        self._bytes += size
        self._shrink()

    def parameters(self, handle: str) -> Mapping[str, pa.Scalar]:
        """What was bound to `handle`; empty when nothing was, or when it is long ago."""
        self._shrink()
        bound = self._bound.get(handle)
        if bound is None:
            return {}
        bound.used = self._clock()
        self._bound.move_to_end(handle)
        return bound.parameters

    def close(self, handle: str) -> None:
        """Drops the values; an unknown handle is no error."""
        bound = self._bound.pop(handle, None)
        if bound is not None:
            self._bytes -= bound.size

    def _shrink(self) -> None:
        """Drops the least recently used until all bounds hold."""
        oldest = self._clock() - KEEP_SECONDS
        while self._bound:
            handle, bound = next(iter(self._bound.items()))
            if bound.used >= oldest and len(self._bound) <= MAX_STATEMENTS and self._bytes <= MAX_BOUND_BYTES:
                return
            self.close(handle)


def _unwrap(value: pa.Scalar) -> pa.Scalar:
    return value.value if isinstance(value, pa.UnionScalar) else value
