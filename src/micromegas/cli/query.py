"""`micromegas query`: asks a server and writes the rows. Streams every format but the table, whatever their number."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from micromegas.cli.errors import CliError
from micromegas.cli.formats import FORMATS, is_binary, writer_for
from micromegas.cli.server_errors import told_in_one_line
from micromegas.cli.times import parse_time
from micromegas.client import Client


@dataclass(frozen=True, slots=True)
class QueryFlags:
    """The flags as typed."""

    sql: str
    begin: str | None
    end: str | None
    limit: int | None
    format: str | None
    output: Path | None
    server: str
    api_key: str | None


def run_query(flags: QueryFlags) -> None:
    """Writes the rows; raises `CliError` with the next step for whatever goes wrong."""
    format_name = flags.format or _format_of_file(flags.output) or "table"
    if format_name not in FORMATS:
        raise CliError(f"--format {format_name}: choose one of {', '.join(FORMATS)}")
    if is_binary(format_name) and flags.output is None and sys.stdout.isatty():
        raise CliError(f"{format_name} is not for a terminal: add --output FILE, or pipe it")
    sql = sys.stdin.read() if flags.sql == "-" else flags.sql
    if not sql.strip():
        raise CliError('no statement: write one in quotes, such as "SELECT * FROM processes"')
    now = time.time_ns()
    begin = None if flags.begin is None else parse_time("--begin", flags.begin, now)
    end = None if flags.end is None else parse_time("--end", flags.end, now)
    with told_in_one_line(), ExitStack() as stack:
        client = stack.enter_context(Client(flags.server, api_key=flags.api_key))
        result = stack.enter_context(client.stream(sql, begin, end, flags.limit))
        # the file is made only once the statement is known to be good
        sink = sys.stdout.buffer if flags.output is None else stack.enter_context(_created(flags.output))
        writer = writer_for(format_name, sink, result.schema)
        for batch in result:
            writer.write(batch)
        writer.close()
        sink.flush()


def _format_of_file(output: Path | None) -> str | None:
    suffix = "" if output is None else output.suffix.removeprefix(".")
    return suffix if suffix in FORMATS else None


def _created(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise CliError(f"--output {path}: {error.strerror}") from None
