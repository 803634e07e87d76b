"""`micromegas logs`: log events as lines, of all processes or one, and with `-f` those that arrive from now on.

Following asks again and again for what was inserted since: insert times grow in the order in which blocks become
visible, so nothing is left out and nothing told twice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from micromegas.cli.connection import connected
from micromegas.cli.errors import UsageError
from micromegas.cli.formats import writer_for
from micromegas.cli.levels import level_name, level_number, level_style
from micromegas.cli.literals import all_of, containing, time_literal
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.process_lookup import KnownProcess, known_process
from micromegas.cli.questions import LogsFlags
from micromegas.cli.rows import chosen_format, write_table
from micromegas.cli.times import parse_time
from micromegas.client import Client, ServerUnreachable
from micromegas.client.sql_literal import text_literal
from micromegas.wire.printable import printable
from micromegas.wire.row_formats import iso_time

_COLUMNS = """process_id, exe, time, level, target, msg,
    jsonb_format_json(properties) AS properties, insert_time"""
_DEFAULT_BEGIN = "1h"


def run_logs(connection: Connection, flags: LogsFlags) -> None:
    """Prints the lines; with `follow` never returns. Raises `CliError` with the next step for whatever goes wrong."""
    if flags.first is not None and (flags.last is not None or flags.follow):
        raise UsageError("--first goes neither with --last nor with --follow: leave one out")
    if flags.follow and flags.end is not None:
        raise UsageError("--follow has no --end: leave one out")
    rows = RowFlags(flags.format, flags.as_json)
    format_name = None if rows == RowFlags() else chosen_format(rows)
    if flags.follow and format_name not in (None, "json", "jsonl"):
        raise UsageError(f"--follow and --format {format_name}: choose jsonl, or none")
    with connected(connection) as client:
        process = None if flags.process is None else known_process(client, flags.process)
        question = _Question(flags, process)
        if flags.follow:
            _follow(client, question, _line_printer(flags.color, process) if format_name is None else _print_json)
            return
        table = question.ask(client)
        if format_name is None:
            _line_printer(flags.color, process)(table)
        else:
            write_table(table.drop_columns(["insert_time"]), format_name)


class _Question:
    """What the flags ask for."""

    def __init__(self, flags: LogsFlags, process: KnownProcess | None) -> None:
        self._conditions = [
            None if flags.level is None else f"level <= {level_number(flags.level)}",
            None if flags.target is None else containing("target", flags.target),
            None if flags.text is None else containing("msg", flags.text),
            None if flags.exe is None else containing("exe", flags.exe),
        ]
        now = time.time_ns()
        if process is None or flags.follow:
            self._source = "log_entries"
            self.begin = parse_time("--begin", flags.begin or _DEFAULT_BEGIN, now)
            self.end = None if flags.end is None else parse_time("--end", flags.end, now)
            if process is not None:
                self._conditions.append(f"process_id = {text_literal(process.process_id)}")
        else:
            self._source = f"view_instance('log_entries', {text_literal(process.process_id)})"
            self.begin, self.end = process.range(flags.begin, flags.end)
        self.interval = flags.interval
        self._from_begin = flags.first is not None
        self._count = flags.last if flags.first is None else flags.first

    def ask(self, client: Client, inserted_until: int | None = None) -> pa.Table:
        """The first or last rows, as many as the flags say, in the order of time."""
        until = [] if inserted_until is None else [f"insert_time <= {time_literal(inserted_until)}"]
        order = "time" if self._from_begin else "time DESC"
        limit = 1000 if self._count is None else self._count
        table = self._query(client, until, f"ORDER BY {order} LIMIT {limit}")
        return table if self._from_begin else table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))

    def newest(self, client: Client) -> int:
        """The insert time (ns) of the newest row."""
        sql = f"SELECT max(insert_time) AS newest FROM {self._source} WHERE {all_of(self._conditions)}"
        newest = client.query(sql, self.begin, self.end)["newest"][0]
        return int(newest.value) if newest.is_valid else 0

    def inserted_after(self, client: Client, after: int) -> pa.Table:
        return self._query(client, [f"insert_time > {time_literal(after)}"], "ORDER BY time")

    def _query(self, client: Client, conditions: list[str], order: str) -> pa.Table:
        condition = all_of([*self._conditions, *conditions])
        sql = f"SELECT {_COLUMNS} FROM {self._source} WHERE {condition} {order}"
        return client.query(sql, self.begin, self.end)


def _follow(client: Client, question: _Question, show: Callable[[pa.Table], None]) -> None:
    newest = question.newest(client)
    show(question.ask(client, newest))
    is_lost = False
    while True:
        time.sleep(question.interval)
        try:
            table = question.inserted_after(client, newest)
        except ServerUnreachable as error:
            if not is_lost:
                sys.stderr.write(f"micromegas: {error}; trying again\n")
            is_lost = True
            continue
        is_lost = False
        if table.num_rows:
            newest = max(each.value for each in table["insert_time"])
            show(table)


def _print_json(table: pa.Table) -> None:
    writer = writer_for("jsonl", sys.stdout.buffer, table.schema)
    for batch in table.drop_columns(["insert_time"]).to_batches():
        writer.write(batch)
    sys.stdout.buffer.flush()


def _line_printer(color: str, process: KnownProcess | None) -> Callable[[pa.Table], None]:
    """A line per event: time, level, the process where there may be several, target, text, properties."""
    import rich.console
    import rich.text

    if color not in ("auto", "always", "never"):
        raise UsageError(f"--color {color}: choose auto, always or never")
    console = rich.console.Console(
        force_terminal={"always": True, "never": False}.get(color),
        no_color=True if color == "never" else None,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )

    def show(table: pa.Table) -> None:
        for row in zip(*(table[name] for name in table.schema.names), strict=True):
            console.print(rich.text.Text.assemble(*_parts(dict(zip(table.schema.names, row, strict=True)), process)))

    return show


def _parts(row: dict[str, Any], process: KnownProcess | None) -> list[tuple[str, str]]:
    level = row["level"].as_py()
    style = level_style(level)
    parts = [(f"{iso_time(row['time'].value, utc=False)[:26]}Z ", "dim"), (f"{level_name(level):<5} ", style)]
    if process is None:
        exe = row["exe"].as_py().replace("\\", "/").rpartition("/")[2]
        parts.append((f"{_indented(exe)}[{row['process_id'].as_py()[:8]}] ", "cyan"))
    parts += [(f"{_indented(row['target'].as_py())}: ", "blue"), (_indented(row["msg"].as_py()), style)]
    properties = row["properties"].as_py()
    if properties not in (None, "{}"):
        parts.append((f" {_indented(properties)}", "dim"))
    return parts


def _indented(text: str) -> str:
    """Further lines begin with blanks, so that they are told from events."""
    return printable(text.rstrip("\n")).replace("\n", "\n    ")
