"""What an Arrow column is in PostgreSQL: its type there, and the Arrow array that the encoder writes. Never changes a
value but by what PostgreSQL can't hold: nanoseconds become microseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from micromegas import _engine
from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.messages import Column

TEXT_FORM, BINARY_FORM = 0, 1
_BINARY_JSONB = 2


@dataclass(frozen=True, slots=True)
class PostgresType:
    """A type of PostgreSQL: its number, the number of arrays of it, its length in bytes (-1: varies), its name in
    SQL."""

    oid: int
    array_oid: int
    length: int
    name: str


BOOL = PostgresType(16, 1000, 1, "boolean")
BYTEA = PostgresType(17, 1001, -1, "bytea")
INT8 = PostgresType(20, 1016, 8, "bigint")
INT2 = PostgresType(21, 1005, 2, "smallint")
INT4 = PostgresType(23, 1007, 4, "integer")
TEXT = PostgresType(25, 1009, -1, "text")
JSON = PostgresType(114, 199, -1, "json")
FLOAT4 = PostgresType(700, 1021, 4, "real")
FLOAT8 = PostgresType(701, 1022, 8, "double precision")
DATE = PostgresType(1082, 1182, 4, "date")
TIME = PostgresType(1083, 1183, 8, "time without time zone")
TIMESTAMP = PostgresType(1114, 1115, 8, "timestamp without time zone")
TIMESTAMPTZ = PostgresType(1184, 1185, 8, "timestamp with time zone")
INTERVAL = PostgresType(1186, 1187, 16, "interval")
NUMERIC = PostgresType(1700, 1231, -1, "numeric")
JSONB = PostgresType(3802, 3807, -1, "jsonb")

_EXACT = {
    pa.bool_(): BOOL,
    pa.int8(): INT2,
    pa.uint8(): INT2,
    pa.int16(): INT2,
    pa.uint16(): INT4,
    pa.int32(): INT4,
    pa.uint32(): INT8,
    pa.int64(): INT8,
    pa.uint64(): NUMERIC,
    pa.float16(): FLOAT4,
    pa.float32(): FLOAT4,
    pa.float64(): FLOAT8,
    pa.date32(): DATE,
    pa.date64(): DATE,
    pa.null(): TEXT,
}
# The Arrow type that the encoder takes for each; of those that aren't here, more than one.
_ENCODED = {
    BOOL: pa.bool_(),
    INT2: pa.int16(),
    INT4: pa.int32(),
    INT8: pa.int64(),
    FLOAT4: pa.float32(),
    FLOAT8: pa.float64(),
    DATE: pa.date32(),
    TIME: pa.time64("us"),
    TEXT: pa.string(),
    BYTEA: pa.binary(),
    INTERVAL: pa.month_day_nano_interval(),
}
_TWENTY_DIGITS = pa.decimal128(20, 0)


def scalar_type(kind: pa.DataType) -> PostgresType | None:
    """The type of a column that is no list; None for what only JSON can hold."""
    if kind in _EXACT:
        return _EXACT[kind]
    if pa.types.is_dictionary(kind):
        # all that the lake has of these is JSONB
        return JSONB if pa.types.is_binary(kind.value_type) else scalar_type(kind.value_type)
    if pa.types.is_run_end_encoded(kind):
        return scalar_type(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return TEXT
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        return BYTEA
    if pa.types.is_timestamp(kind):
        return TIMESTAMP if kind.tz is None else TIMESTAMPTZ
    if pa.types.is_time(kind):
        return TIME
    if pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return INTERVAL
    if pa.types.is_decimal(kind):
        return NUMERIC
    return None


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a result: what is told of it, and of which type its elements are where it is an array."""

    description: Column
    type: PostgresType
    is_array: bool

    @property
    def shown(self) -> PostgresType:
        """The type that is told; elements of arrays are written without the version that binary jsonb begins with."""
        return JSON if self.is_array and self.type is JSONB else self.type


def result_column(field: pa.Field) -> ResultColumn:
    """How a field of a result is shown to a client."""
    element = None
    if _is_list(field.type):
        element = scalar_type(field.type.value_type)
    if element is not None:
        shown = JSON if element is JSONB else element
        return ResultColumn(Column(field.name, shown.array_oid, -1), element, True)
    kind = scalar_type(field.type) or JSON
    return ResultColumn(Column(field.name, kind.oid, kind.length), kind, False)


class RowEncoder:
    """Writes the batches of one result as messages; `forms` are the formats that a client asked for, none, one for all,
    or one per column."""

    def __init__(self, columns: Sequence[ResultColumn], forms: Sequence[int]) -> None:
        self._columns = columns
        self.forms = column_forms(forms, len(columns))
        self._codes = bytes(
            _BINARY_JSONB if form == BINARY_FORM and column.type is JSONB and not column.is_array else form
            for form, column in zip(self.forms, columns, strict=True)
        )
        self._element_oids = [column.shown.oid if column.is_array else 0 for column in columns]

    def rows(self, batch: pa.RecordBatch) -> bytes:
        """DataRow messages."""
        try:
            return _engine.postgres_rows(encodable(batch, self._columns), self._codes, self._element_oids)
        except (pa.ArrowException, ValueError) as error:
            raise unsendable(error) from None

    def copied(self, batch: pa.RecordBatch) -> bytes:
        """CopyData messages of COPY's binary format, where all columns are in binary form."""
        return _engine.postgres_copy_binary_rows(encodable(batch, self._columns), self._codes, self._element_oids)


def encodable(batch: pa.RecordBatch, columns: Sequence[ResultColumn]) -> pa.RecordBatch:
    """The batch in types that the encoder takes."""
    arrays = [_encodable(array, column) for array, column in zip(batch.columns, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])


def column_forms(forms: Sequence[int], count: int) -> list[int]:
    """A format per column; `PostgresError` for formats that can't be."""
    if any(form not in (TEXT_FORM, BINARY_FORM) for form in forms):
        raise PostgresError("22023", "a format of columns must be 0 or 1")
    if not forms:
        return [TEXT_FORM] * count
    if len(forms) == 1:
        return list(forms) * count
    if len(forms) != count:
        raise PostgresError("08P01", f"{len(forms)} formats for {count} columns")
    return list(forms)


def unsendable(error: Exception) -> PostgresError:
    return PostgresError("22000", f"the result can't be sent: {error}")


def _encodable(array: Any, column: ResultColumn) -> Any:
    if not column.is_array:
        return _of_type(array, column.type)
    lists = _as_list(array)
    items = _plain(_of_type(lists.values, column.type))
    return pa.ListArray.from_arrays(lists.offsets, items, mask=array.is_null() if array.null_count else None)


def _of_type(array: Any, kind: PostgresType) -> Any:
    if pa.types.is_dictionary(array.type):
        values = array.dictionary
        if kind is JSONB:
            return _json_text(array)
        if not pa.types.is_nested(values.type):
            values = _of_type(values, kind)
            if pa.types.is_dictionary(values.type):
                values = _plain(values)
            return pa.DictionaryArray.from_arrays(array.indices.cast(pa.int32()), values)
        array = _plain(array)
    if pa.types.is_run_end_encoded(array.type):
        return _of_type(pc.run_end_decode(array), kind)
    if kind is JSON:
        return pa.array([_as_json(value) for value in array.to_pylist()], pa.string())
    if kind is NUMERIC:
        return _as_decimal(array)
    if kind is INTERVAL:
        return _as_interval(array)
    if kind in (TIMESTAMP, TIMESTAMPTZ):
        if array.type.unit in ("us", "ns"):
            return array
        return array.cast(pa.timestamp("us", array.type.tz))
    if kind is BYTEA and not pa.types.is_binary(array.type):
        return array.cast(pa.binary())
    target = _ENCODED[kind]
    # of a time of day, PostgreSQL keeps no nanoseconds
    return array if array.type.equals(target) else array.cast(target, safe=kind is not TIME)


def _json_text(array: Any) -> Any:
    text = pa.array(_engine.jsonb_format_json(array))
    return pa.DictionaryArray.from_arrays(text.indices.cast(pa.int32()), text.dictionary.cast(pa.string()))


def _as_decimal(array: Any) -> Any:
    if pa.types.is_integer(array.type):
        return array.cast(_TWENTY_DIGITS)
    if pa.types.is_decimal128(array.type) and array.type.scale >= 0:
        return array
    scale = max(0, array.type.scale)
    return array.cast(pa.decimal128(38, scale))


def _as_interval(array: Any) -> Any:
    if pa.types.is_interval(array.type):
        return array
    nanoseconds = array.cast(pa.duration("ns")).cast(pa.int64())
    intervals = [None if value is None else pa.MonthDayNano([0, 0, value]) for value in nanoseconds.to_pylist()]
    return pa.array(intervals, pa.month_day_nano_interval())


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=_json_default)


def _json_default(value: Any) -> Any:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def _plain(array: Any) -> Any:
    """A dictionary's rows as values."""
    return pc.take(array.dictionary, array.indices) if pa.types.is_dictionary(array.type) else array


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def _as_list(array: Any) -> Any:
    """Any list as one with offsets, which begin with those of its first row."""
    kind = array.type
    if not pa.types.is_list(kind):
        array = array.cast(pa.list_(kind.value_field))
    if array.offset:
        array = pa.concat_arrays([array])
    return array
