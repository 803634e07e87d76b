"""Rows of an answer to where the flags say: standard output or a file, in one of the formats."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from micromegas.cli.errors import CliError, UsageError
from micromegas.cli.formats import FORMATS, TIME_DIGITS, is_binary, writer_for
from micromegas.cli.options import RowFlags
from micromegas.cli.output_file import output_file


def chosen_format(flags: RowFlags, output: Path | None = None) -> str:
    """What `--format`, `--json` and the name of the file say together."""
    if flags.as_json:
        if flags.format not in (None, "json"):
            raise UsageError(f"--json and --format {flags.format}: leave one out")
        return "json"
    name = flags.format or _format_of_file(output) or "table"
    if name not in FORMATS:
        raise UsageError(f"--format {name}: choose one of {', '.join(FORMATS)}")
    if is_binary(name) and output is None and sys.stdout.isatty():
        raise UsageError(f"{name} is not for a terminal: add --output FILE, or pipe it")
    return name


def write_rows(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    format_name: str,
    output: Path | None = None,
    *,
    time_digits: int = TIME_DIGITS,
) -> int:
    """Writes them as they come; returns how many. `time_digits`: of a second, in tables."""
    count = 0
    with _sink(output) as sink:
        try:
            writer = writer_for(format_name, sink, schema, time_digits)
        except pa.ArrowNotImplementedError as error:
            step = "cast such columns to text, or choose --format arrow"
            raise CliError(f"--format {format_name}: {error}; {step}") from None
        for batch in batches:
            writer.write(batch)
            count += batch.num_rows
        writer.close()
        sink.flush()
    return count


def write_table(table: pa.Table, format_name: str, *, time_digits: int = TIME_DIGITS) -> None:
    """All rows to standard output."""
    write_rows(table.to_batches(), table.schema, format_name, time_digits=time_digits)


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        if sys.stdout is None:
            raise CliError("standard output is closed: leave it open, or add --output FILE")
        yield sys.stdout.buffer
        return
    with output_file(output) as file:
        yield file


def _format_of_file(output: Path | None) -> str | None:
    suffix = "" if output is None else output.suffix.removeprefix(".")
    return suffix if suffix in FORMATS else None
