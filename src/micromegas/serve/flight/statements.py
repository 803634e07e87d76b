"""Prepared statements: their handles and the values bound to them. Bounded in number and age; holds no plan and no
result.

A statement without placeholders needs no state: its handle is its SQL text, which some clients send back as a query.
With placeholders the handle is the text behind a comment that makes it unique, because two users may bind different
values to one text; it is still SQL, so that a handle whose values were dropped says so by the engine's own error about
unbound placeholders. Binding gives a handle that carries the values, in one more comment, and works on any server; for
clients that go on with the old one they are kept here, too.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas.serve.flight.errors import invalid
from micromegas.serve.flight.flight_data import IncomingBatches
from micromegas.serve.placeholders import number_placeholders

MAX_STATEMENTS = 10_000
MAX_BOUND_BYTES = 64 * 1024 * 1024
KEEP_SECONDS = 3600.0
MAX_CARRIED_BYTES = 256 * 1024
"""A handle goes there and back several times in a query, in messages of which some clients take 4 MiB only."""

_CARRYING = re.compile(r"/\* bound ([A-Za-z0-9+/=]+) \*/ ")
_UNIQUE = re.compile(r"/\* [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12} \*/ ")


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

    def bind(self, handle: str, values: pa.RecordBatch | None) -> str:
        """Keeps the one row of `values`: one column per placeholder, in the order of the parameter schema (column names
        are the client's own). Returns the handle that carries them, or the one without any where they are too long.

        Dense unions (some clients wrap each value in one) are unwrapped. `None` drops what was bound.
        """
        handle = _without_values(handle)
        names = number_placeholders(handle).names
        self.close(handle)
        if values is None:
            return handle
        scalars = _scalars(names, values)
        size = int(values.get_total_buffer_size()) + len(handle)
        if size > MAX_BOUND_BYTES:
            raise invalid(f"parameters of {size} bytes are over the limit of {MAX_BOUND_BYTES}")
        self._bound[handle] = _Bound(self._clock(), size, scalars)
        self._bytes += size
        self._shrink()
        carried = _carried(values)
        return handle if len(carried) > MAX_CARRIED_BYTES else f"/* bound {carried} */ {handle}"

    def statement(self, handle: str) -> tuple[str, Mapping[str, pa.Scalar]]:
        """The SQL of a handle and what was bound to it; empty when nothing was, or when it is long ago."""
        bare = _without_values(handle)
        sql = bare if (unique := _UNIQUE.match(bare)) is None else bare[unique.end() :]
        if (carrying := _CARRYING.match(handle)) is not None:
            return sql, _scalars(number_placeholders(bare).names, _uncarried(carrying[1]))
        return sql, self._kept(bare)

    def _kept(self, handle: str) -> Mapping[str, pa.Scalar]:
        self._shrink()
        bound = self._bound.get(handle)
        if bound is None:
            return {}
        bound.used = self._clock()
        self._bound.move_to_end(handle)
        return bound.parameters

    def close(self, handle: str) -> None:
        """Drops the values; an unknown handle is no error."""
        bound = self._bound.pop(_without_values(handle), None)
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


def _without_values(handle: str) -> str:
    carrying = _CARRYING.match(handle)
    return handle if carrying is None else handle[carrying.end() :]


def _carried(values: pa.RecordBatch) -> str:
    """The row as a text that may stand in a comment."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, values.schema) as writer:
        writer.write_batch(values)
    return base64.b64encode(sink.getvalue()).decode("ascii")


def _uncarried(text: str) -> pa.RecordBatch:
    """The row out of a handle, which anybody could have written."""
    incoming = IncomingBatches(MAX_BOUND_BYTES)
    try:
        stream = pa.py_buffer(base64.b64decode(text, validate=True))
        for message in pa.ipc.MessageReader.open_stream(stream):
            batch = incoming.take(message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b"")
            if batch is not None:
                return batch
    except (pa.ArrowException, OSError, ValueError) as error:
        raise invalid(f"the values in the statement handle can't be read: {error}") from None
    raise invalid("the statement handle carries no values")


def _scalars(names: Sequence[str], values: pa.RecordBatch) -> Mapping[str, pa.Scalar]:
    """The one row of values by the names of placeholders."""
    if values.num_rows != 1:
        raise invalid(f"a statement takes one row of parameters, not {values.num_rows}")
    if values.num_columns != len(names):
        raise invalid(f"the statement has {len(names)} placeholders, got {values.num_columns} values")
    return {name: _unwrap(column[0]) for name, column in zip(names, values.columns, strict=True)}


def _unwrap(value: pa.Scalar) -> pa.Scalar:
    return value.value if isinstance(value, pa.UnionScalar) else value
