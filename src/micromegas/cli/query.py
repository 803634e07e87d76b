"""`micromegas query`: asks a server and writes the rows. Streams every format but the table, whatever their number."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from micromegas.cli.connection import connected
from micromegas.cli.errors import CliError, UsageError
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.questions import QueryFlags
from micromegas.cli.rows import chosen_format, write_rows
from micromegas.cli.times import parse_time
from micromegas.client.progress import ProgressLine


def run_query(connection: Connection, flags: QueryFlags, rows: RowFlags) -> None:
    """Writes the rows; raises `CliError` with the next step for whatever goes wrong."""
    format_name = chosen_format(rows, flags.output)
    sql = _statement(flags)
    now = time.time_ns()
    begin = None if flags.begin is None else parse_time("--begin", flags.begin, now)
    end = None if flags.end is None else parse_time("--end", flags.end, now)
    with ExitStack() as stack:
        client = stack.enter_context(connected(connection))
        to_file = flags.output is not None and sys.stderr.isatty()
        progress = stack.enter_context(ProgressLine()) if to_file else None
        result = stack.enter_context(client.stream(sql, begin, end, flags.limit, progress=progress))
        # the file is made only now that the statement is known to be good
        write_rows(result, result.schema, format_name, flags.output)


def _statement(flags: QueryFlags) -> str:
    if flags.sql is not None and flags.file is not None:
        raise UsageError("a statement and --file: leave one out")
    try:
        if flags.sql == "-" or flags.file == Path("-"):
            sql = sys.stdin.buffer.read().decode()
        else:
            sql = flags.sql if flags.file is None else flags.file.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"--file {flags.file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(f"{flags.file or 'standard input'}: not a text in UTF-8") from None
    if sql is None or not sql.strip():
        raise UsageError('no statement: write one in quotes, such as "SELECT * FROM processes"')
    return sql
