"""Prepared statements and the values of their placeholders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa

from micromegas.client.messages import PreparedResult
from micromegas.wire import datetime_ns

Parameters = Sequence[object] | Mapping[str, object]
"""Values of `?` or `$1`, `$2` … in order, or of `$name` by name: what Python or Arrow (a `pyarrow.Scalar`) has for the
types of SQL. Datetimes must have a time zone."""


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A statement that the server has read.

    `query` is its text, `dataset_schema` that of its rows, `parameter_schema` has a field per placeholder, in order.
    """

    query: str
    dataset_schema: pa.Schema
    parameter_schema: pa.Schema
    handle: bytes = field(repr=False)

    @classmethod
    def of(cls, query: str, result: PreparedResult) -> PreparedStatement:
        """As the server told it; `ValueError` for schemas that can't be read."""
        schemas = (_schema(result.dataset_schema), _schema(result.parameter_schema))
        return cls(query, *schemas, result.handle)

    def row(self, parameters: Parameters) -> pa.RecordBatch:
        """One row with a column per placeholder; `ValueError` or `TypeError` for values that can't be."""
        fields = list(self.parameter_schema)
        if isinstance(parameters, Mapping):
            names = [each.name for each in fields]
            if parameters.keys() != set(names):
                raise ValueError(f"the statement's parameters are {_listed(names)}; given are {_listed(parameters)}")
            values = [parameters[name] for name in names]
        else:
            if isinstance(parameters, str | bytes):
                raise TypeError("parameters are a list or a mapping, not one text")
            values = list(parameters)
            if len(values) != len(fields):
                raise ValueError(f"the statement has {len(fields)} parameters; given are {len(values)}")
        columns = [_column(value, each) for value, each in zip(values, fields, strict=True)]
        return pa.RecordBatch.from_arrays(columns, names=[each.name for each in fields])


def _column(value: Any, parameter: pa.Field) -> pa.Array:
    if isinstance(value, pa.Scalar):
        return pa.array([value], value.type)
    if value is None:
        return pa.nulls(1, parameter.type)
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"parameter {parameter.name}: time {value.isoformat()} has no time zone")
    try:
        if isinstance(value, datetime) and hasattr(value, "nanosecond"):
            # a Timestamp of pandas, of which Arrow would take the microseconds
            return pa.array([datetime_ns(value)], pa.timestamp("ns", "UTC"))
        if isinstance(value, int) and value >= 2**63:
            return pa.array([value], pa.uint64())
        # the type of the value, not that of the placeholder, which servers can't always tell
        return pa.array([str(value) if isinstance(value, UUID) else value])
    except (pa.ArrowException, OverflowError) as error:
        raise TypeError(f"parameter {parameter.name}: {error}") from None


def _schema(message: bytes) -> pa.Schema:
    if not message:
        return pa.schema([])
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the server's schema of a prepared statement can't be read: {error}") from None


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"
