"""`micromegas processes`: which programs sent something, the latest first."""

from __future__ import annotations

import time

from micromegas.cli.connection import connected
from micromegas.cli.literals import all_of, containing
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.questions import ProcessesFlags
from micromegas.cli.rows import chosen_format, write_table
from micromegas.cli.times import parse_time

_COLUMNS = "process_id, exe, start_time, last_update_time, username, computer, distro, cpu_brand, parent_process_id"


def run_processes(connection: Connection, flags: ProcessesFlags, rows: RowFlags) -> None:
    """A row per process that sent something within the range; raises `CliError` for whatever goes wrong."""
    format_name = chosen_format(rows)
    now = time.time_ns()
    begin, end = parse_time("--begin", flags.begin, now), parse_time("--end", flags.end, now)
    named = (("exe", flags.exe), ("username", flags.username), ("computer", flags.computer))
    # a table is for eyes: the end of a path is what tells programs apart
    columns = _COLUMNS.replace("exe", "right(exe, 64) AS exe") if format_name == "table" else _COLUMNS
    sql = (
        f"SELECT {columns} FROM processes"
        f" WHERE {all_of(None if part is None else containing(column, part) for column, part in named)}"
        f" ORDER BY last_update_time DESC, process_id LIMIT {flags.limit}"
    )
    with connected(connection) as client:
        table = client.query(sql, begin, end)
    write_table(table, format_name, time_digits=0)
