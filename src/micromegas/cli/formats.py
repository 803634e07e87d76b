"""Rows as table and as Parquet, beside the formats of `micromegas.wire.row_formats`. No value is rounded."""

from __future__ import annotations

import io
import shutil
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet

from micromegas.wire.printable import printable
from micromegas.wire.row_formats import ArrowWriter, CsvWriter, JsonLinesWriter, JsonWriter, RowWriter, as_text

FORMATS = ("table", "json", "jsonl", "csv", "arrow", "parquet")
MAX_TABLE_ROWS = 1000
TIME_DIGITS = 9


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
            return ArrowWriter(sink, schema)
        case "parquet":
            return _ParquetWriter(sink, schema)
        case _:
            return TableWriter(sink, schema, time_digits)


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
        return printable(text)

    def close(self) -> None:
        import rich.box
        import rich.console
        import rich.table
        import rich.text

        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for field in self._schema:
            right = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            table.add_column(
                rich.text.Text(printable(field.name)), justify="right" if right else "left", overflow="fold"
            )
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


class _ParquetWriter:
    """What pyarrow writes itself."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pyarrow.parquet.ParquetWriter(pa.PythonFile(_Counted(sink), "w"), schema)

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


def _count_line(rows: int, shown: int) -> str:
    line = f"{rows} row" if rows == 1 else f"{rows} rows"
    return line if rows == shown else f"{line}, the first {shown} shown: use --limit, or --format csv for all"
