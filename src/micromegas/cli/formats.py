"""Rows as table, JSON, JSON lines, CSV, Arrow stream or Parquet. No value is rounded: times keep their nanoseconds,
binary is base64 in text."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

FORMATS = ("table", "json", "jsonl", "csv", "arrow", "parquet")
MAX_TABLE_ROWS = 1000
TIME_DIGITS = 9


class RowWriter(Protocol):
    """Takes the batches of one result; `close` completes the output, without closing the file."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def is_binary(format_name: str) -> bool:
    return format_name in ("arrow", "parquet")


def writer_for(format_name: str, sink: BinaryIO, schema: pa.Schema, time_digits: int = TIME_DIGITS) -> RowWriter:
    """A writer of one of `FORMATS` for rows of `schema`; `time_digits` of a second are shown in tables."""
    match format_name:
        case "json":
            return JsonWriter(sink)
        case "jsonl":
            return JsonLinesWriter(sink)
        case "csv":
            return CsvWriter(sink, schema)
        case "arrow":
            return _ArrowWriter(pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema))
        case "parquet":
            return _ArrowWriter(pyarrow.parquet.ParquetWriter(pa.PythonFile(_Counted(sink), "w"), schema))
        case _:
            return TableWriter(sink, schema, time_digits)


class JsonWriter:
    """An array of one object per row. Times are ISO texts, binary base64, numbers that JSON lacks are texts
    (`"NaN"`)."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._separator = b"[\n"

    def write(self, batch: pa.RecordBatch) -> None:
        for record in _records(batch):
            self._sink.write(self._separator + record)
            self._separator = b",\n"

    def close(self) -> None:
        self._sink.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


class JsonLinesWriter:
    """An object of JSON on a line of its own per row, each row as soon as it is known."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def write(self, batch: pa.RecordBatch) -> None:
        for record in _records(batch):
            self._sink.write(record + b"\n")

    def close(self) -> None:
        pass


class CsvWriter:
    """A header line, then a line per row. Nested values are JSON, nulls are empty, texts are quoted."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._schema = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
        self._writer = pyarrow.csv.CSVWriter(pa.PythonFile(sink, "w"), self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            column if column.type == field.type else pa.array([as_text(value) for value in column], pa.string())
            for column, field in zip(batch.columns, self._schema, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class TableWriter:
    """A table for reading; rows beyond `MAX_TABLE_ROWS` are counted, and the last line says so."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema, time_digits: int = TIME_DIGITS) -> None:
        self._sink = sink
        self._schema = schema
        self._digits_left_out = TIME_DIGITS - time_digits
        self._rows: list[list[str]] = []
        self._count = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._count += batch.num_rows
        shown = batch.slice(0, max(0, MAX_TABLE_ROWS - len(self._rows)))
        columns = [[self._cell(value) for value in column] for column in shown.columns]
        self._rows.extend(map(list, zip(*columns, strict=True)))

    def _cell(self, value: Any) -> str:
        text = as_text(value) or ""
        if self._digits_left_out and text and pa.types.is_timestamp(value.type):
            zone = "Z" if text.endswith("Z") else ""
            return text[: len(text) - len(zone) - self._digits_left_out].removesuffix(".") + zone
        return text

    def close(self) -> None:
        import rich.box
        import rich.console
        import rich.table
        import rich.text

        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for field in self._schema:
            right = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            table.add_column(rich.text.Text(field.name), justify="right" if right else "left", overflow="fold")
        for row in self._rows:
            # as Text, because values may hold what rich would take for markup
            table.add_row(*(rich.text.Text(cell) for cell in row))
        text = io.StringIO()
        # a terminal's width folds cells; a file or pipe gets each row on one line
        width = shutil.get_terminal_size().columns if self._sink.isatty() else 10_000
        console = rich.console.Console(file=text, width=width, highlight=False)
        console.print(table)
        console.print(_count_line(self._count, len(self._rows)))
        self._sink.write(text.getvalue().encode("utf-8", "replace"))


class _ArrowWriter:
    """What pyarrow writes itself."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Counted:
    """A pipe that knows its position, which Parquet asks for."""

    closed = False

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._position = 0

    def write(self, data: bytes) -> int:
        self._sink.write(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.closed = True


def _records(batch: pa.RecordBatch) -> Iterator[bytes]:
    """A JSON object per row."""
    columns = [[plain(value) for value in column] for column in batch.columns]
    for row in zip(*columns, strict=True):
        record = dict(zip(batch.schema.names, row, strict=True))
        yield json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


def plain(value: Any) -> Any:
    """A pyarrow scalar as what JSON knows."""
    if not value.is_valid:
        return None
    kind = value.type
    if pa.types.is_dictionary(kind) or pa.types.is_union(kind):
        return plain(value.value)
    if pa.types.is_timestamp(kind):
        return iso_time(value.cast(pa.timestamp("ns")).value, utc=kind.tz is not None)
    if pa.types.is_struct(kind):
        return {kind.field(i).name: plain(value[i]) for i in range(kind.num_fields)}
    if pa.types.is_map(kind):
        return [[plain(entry[0]), plain(entry[1])] for entry in value.values or ()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [plain(item) for item in value.values]
    if pa.types.is_duration(kind):
        return value.value
    python = value.as_py()
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


def iso_time(nanoseconds: int, *, utc: bool) -> str:
    """ISO 8601 with nine digits. Arrow's own text, since Python's times end at microseconds."""
    text = str(pa.scalar(nanoseconds, pa.timestamp("ns")).cast(pa.string())).replace(" ", "T")
    return f"{text}Z" if utc else text


def _csv_type(kind: Any) -> Any:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return kind
    return pa.string()


def _count_line(rows: int, shown: int) -> str:
    line = f"{rows} row" if rows == 1 else f"{rows} rows"
    return line if rows == shown else f"{line}, the first {shown} shown: use --limit, or --format csv for all"
