"""Rows as JSON, CSV and Arrow streams, for whoever writes them to a file or to the network.

No value is rounded: times keep their nanoseconds, durations are nanoseconds, intervals ISO 8601, binary is base64.
Texts are made by Arrow's kernels wherever there is one, which takes a small part of the time of Python's and lets
other threads run.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

# Enough for a call to be cheap, few enough that one takes milliseconds.
_ROWS_AT_ONCE = 8192
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
# Behind Arrow's text of a time, up to nine digits. Nothing is cast to nanoseconds: an int64 of those ends in 2262.
_MISSING_DIGITS = {"s": ".000000000", "ms": "000000", "us": "000", "ns": ""}
_CONTROL = r"[\x00-\x1f]"
_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object: ...


class RowWriter(Protocol):
    """Takes the batches of one result; `close` completes the output, without closing the sink."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


class JsonWriter:
    """An array of one object per row. Times are ISO texts, binary base64, numbers that JSON lacks are texts
    (`"NaN"`)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._separator = b"[\n"

    def write(self, batch: pa.RecordBatch) -> None:
        for rows in _parts(batch):
            self._sink.write(self._separator)
            # each row begins with what stands between two of them, but for the first
            self._sink.write(_objects(rows, ",\n", "")[2:])
            self._separator = b",\n"

    def close(self) -> None:
        self._sink.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


class JsonLinesWriter:
    """An object per line, as of `JsonWriter`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, batch: pa.RecordBatch) -> None:
        for rows in _parts(batch):
            self._sink.write(_objects(rows, "", "\n"))

    def close(self) -> None:
        pass


class CsvWriter:
    """A header line, then a line per row. Nested values are JSON, nulls are empty, texts are quoted."""

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._schema = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
        self._writer = pyarrow.csv.CSVWriter(pa.PythonFile(sink, "w"), self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        for rows in _parts(batch):
            columns = [
                column if column.type == field.type else _texts(column)
                for column, field in zip(rows.columns, self._schema, strict=True)
            ]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class ArrowWriter:
    """An Arrow IPC stream."""

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


def plain(value: Any) -> Any:
    """A pyarrow scalar as what JSON knows."""
    if not value.is_valid:
        return None
    kind = value.type
    if pa.types.is_dictionary(kind) or pa.types.is_union(kind):
        return plain(value.value)
    if pa.types.is_timestamp(kind):
        return iso_time(value.value, utc=kind.tz is not None, unit=kind.unit)
    if pa.types.is_struct(kind):
        return {kind.field(i).name: plain(value[i]) for i in range(kind.num_fields)}
    if pa.types.is_map(kind):
        return [[plain(entry[0]), plain(entry[1])] for entry in value.values or ()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [plain(item) for item in value.values]
    if pa.types.is_duration(kind):
        return value.value * _NANOSECONDS[kind.unit]
    python = value.as_py()
    if pa.types.is_interval(kind):
        return _iso_interval(*python)
    if isinstance(python, bytes):
        return base64.b64encode(python).decode()
    if isinstance(python, float) and not math.isfinite(python):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(python)]
    return python if isinstance(python, bool | int | float | str) else str(python)


def as_text(value: Any) -> str | None:
    """A pyarrow scalar as one text; None for null."""
    known = plain(value)
    if known is None or isinstance(known, str):
        return known
    return json.dumps(known, ensure_ascii=False)


def iso_time(since_epoch: int, *, utc: bool, unit: str = "ns") -> str:
    """ISO 8601 with nine digits. Arrow's own text, since Python's times end at microseconds."""
    text = str(pa.scalar(since_epoch, pa.timestamp(unit)).cast(pa.string())).replace(" ", "T") + _MISSING_DIGITS[unit]
    return f"{text}Z" if utc else text


def _iso_interval(months: int, days: int, nanoseconds: int) -> str:
    """ISO 8601; each part has its own sign, for they are not convertible: a month has no fixed length."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    parts = [f"{months}M" if months else "", f"{days}D" if days else ""]
    if nanoseconds or not (months or days):
        parts.append(f"T{sign}{seconds}{digits}S")
    return "P" + "".join(parts)


def _parts(batch: pa.RecordBatch) -> Sequence[pa.RecordBatch]:
    return [batch.slice(start, _ROWS_AT_ONCE) for start in range(0, batch.num_rows, _ROWS_AT_ONCE)]


def _objects(batch: pa.RecordBatch, before: str, after: str) -> bytes:
    """An object of JSON per row, each between two texts."""
    if not batch.num_columns:
        return (before + "{}" + after).encode() * int(batch.num_rows)
    parts: list[Any] = []
    opening = before + "{"
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parts += [f"{opening}{json.dumps(name, ensure_ascii=False)}: ", _json_texts(column)]
        opening = ", "
    joined = pc.binary_join_element_wise(*parts, "}" + after, "", null_handling="replace", null_replacement="null")
    return _data(joined)


def _data(texts: Any) -> bytes:
    """All texts one after the other."""
    _, offsets, data = texts.buffers()
    first = int.from_bytes(offsets.slice(4 * texts.offset, 4), "little")
    last = int.from_bytes(offsets.slice(4 * (texts.offset + len(texts)), 4), "little")
    return bytes(data.slice(first, last - first)) if last > first else b""


def _json_texts(column: pa.Array) -> pa.Array:
    """Each value as JSON; nulls stay null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return pc.take(_json_texts(column.dictionary), column.indices)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    if _is_text(kind):
        texts = column.cast(pa.string())
        for found, escape in _ESCAPES:
            texts = pc.replace_substring(texts, found, escape)
        if not pc.any(pc.match_substring_regex(texts, _CONTROL)).as_py():
            return pc.binary_join_element_wise('"', texts, '"', "")
    elif (quoted := _quoted(column)) is not None:
        return pc.binary_join_element_wise('"', quoted, '"', "")
    if pa.types.is_floating(kind) and pc.all(pc.is_finite(column)).as_py() is not False:
        return pa.array([None if number is None else repr(number) for number in column.to_pylist()], pa.string())
    written = [None if (known := plain(value)) is None else json.dumps(known, ensure_ascii=False) for value in column]
    return pa.array(written, pa.string())


def _texts(column: pa.Array) -> pa.Array:
    """Each value as one text; nulls stay null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return pc.take(_texts(column.dictionary), column.indices)
    if _is_text(kind):
        return column.cast(pa.string())
    quoted = _quoted(column)
    return pa.array([as_text(value) for value in column], pa.string()) if quoted is None else quoted


def _quoted(column: pa.Array) -> pa.Array | None:
    """What is a text in JSON and needs no escapes; None for other types."""
    if not pa.types.is_timestamp(column.type):
        return None
    unit, zone = column.type.unit, column.type.tz
    texts = column.cast(pa.timestamp(unit)).cast(pa.string())
    texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    ending = _MISSING_DIGITS[unit] + ("" if zone is None else "Z")
    return pc.binary_join_element_wise(texts, ending, "") if ending else texts


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _csv_type(kind: Any) -> Any:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return kind
    return pa.string()
