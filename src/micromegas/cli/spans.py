"""`micromegas spans`: where the time of a process went, by name of span, or the longest spans one by one."""

from __future__ import annotations

from micromegas.cli.connection import connected
from micromegas.cli.errors import UsageError
from micromegas.cli.literals import all_of, containing
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.process_lookup import known_process
from micromegas.cli.questions import SpansFlags
from micromegas.cli.rows import chosen_format, write_table
from micromegas.client.sql_literal import text_literal

TYPES = ("thread", "async", "both")
_SUMS = """count(*) AS count, sum(duration) / 1e6 AS total_ms, avg(duration) / 1e6 AS mean_ms,
    approx_percentile_cont(duration, 0.95) / 1e6 AS p95_ms, max(duration) / 1e6 AS max_ms"""


def run_spans(connection: Connection, flags: SpansFlags, rows: RowFlags) -> None:
    """A row per thread and name, or per span; raises `CliError` with the next step for whatever goes wrong."""
    format_name = chosen_format(rows)
    if flags.types not in TYPES:
        raise UsageError(f"--types {flags.types}: choose one of {', '.join(TYPES)}")
    condition = all_of(
        (
            None if flags.name is None else containing("name", flags.name),
            None if flags.thread is None else containing("thread_name", flags.thread),
            None if flags.minimum_ms is None else f"duration >= {round(flags.minimum_ms * 1e6)}",
        )
    )
    with connected(connection) as client:
        process = known_process(client, flags.process)
        source = f"process_spans({text_literal(process.process_id)}, {text_literal(flags.types)}) WHERE {condition}"
        if flags.longest:
            sql = (
                "SELECT begin, duration / 1e6 AS ms, thread_name, depth, name, target, filename, line"
                f" FROM {source} ORDER BY duration DESC, begin"
            )
        else:
            sql = f"SELECT thread_name, name, {_SUMS} FROM {source} GROUP BY 1, 2 ORDER BY total_ms DESC, 1, 2"
        table = client.query(f"{sql} LIMIT {flags.limit}", *process.range(flags.begin, flags.end))
    write_table(table, format_name, time_digits=6)
