"""`micromegas metrics`: which measures there are and what they came to; of one of them, how it went over time."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass

import pyarrow as pa

from micromegas.cli.chart import framed
from micromegas.cli.connection import connected
from micromegas.cli.errors import CliError
from micromegas.cli.literals import all_of, containing, time_literal
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.process_lookup import known_process
from micromegas.cli.questions import MetricsFlags
from micromegas.cli.rows import chosen_format, write_table
from micromegas.cli.times import parse_time
from micromegas.client import Client
from micromegas.client.sql_literal import text_literal
from micromegas.wire.printable import printable
from micromegas.wire.row_formats import iso_time

_DEFAULT_BEGIN = "1h"
_HEIGHT = 12
_MARGIN_COLUMNS = 16
_STATISTICS = """count(*) AS count, min(value) AS min, avg(value) AS mean, approx_median(value) AS median,
    approx_percentile_cont(value, 0.95) AS p95, max(value) AS max, sum(value) AS sum"""


@dataclass(frozen=True, slots=True)
class _Source:
    """The measures that the flags mean, and their times (ns)."""

    rows: str
    begin: int
    end: int


def run_metrics(connection: Connection, flags: MetricsFlags, rows: RowFlags) -> None:
    """Statistics per measure, or with `name` a chart; raises `CliError` with the next step for whatever goes wrong."""
    format_name = chosen_format(rows)
    with connected(connection) as client:
        source = _source(client, flags)
        if flags.name is None or flags.statistics:
            sql = f"SELECT name, unit, {_STATISTICS} FROM {source.rows} GROUP BY name, unit ORDER BY 1, 2"
            write_table(client.query(f"{sql} LIMIT {flags.limit}", source.begin, source.end), format_name)
            return
        source, count = _first_to_last(client, source, flags.name)
        columns = max(20, shutil.get_terminal_size().columns - _MARGIN_COLUMNS)
        # two to a column, and no more than there are measures: the rest would be gaps
        step = max(1, -(-(source.end - source.begin + 1) // min(2 * columns, count)))
        buckets = client.query(
            f"SELECT date_bin(INTERVAL '{step} nanoseconds', time, {time_literal(source.begin)}) AS time, unit,"
            " count(*) AS count, min(value) AS min, avg(value) AS mean, max(value) AS max"
            f" FROM {source.rows} GROUP BY 1, 2 ORDER BY 1, 2",
            source.begin,
            source.end,
        )
    if format_name != "table":
        write_table(buckets, format_name)
    else:
        _draw(flags.name, buckets, source, step)


def _source(client: Client, flags: MetricsFlags) -> _Source:
    condition = all_of(
        (
            None if flags.name is None else f"name = {text_literal(flags.name)}",
            None if flags.target is None else containing("target", flags.target),
            None if flags.exe is None else containing("exe", flags.exe),
        )
    )
    if flags.process is not None:
        process = known_process(client, flags.process)
        view = f"view_instance('measures', {text_literal(process.process_id)})"
        return _Source(f"{view} WHERE {condition}", *process.range(flags.begin, flags.end))
    now = time.time_ns()
    begin = parse_time("--begin", flags.begin or _DEFAULT_BEGIN, now)
    return _Source(f"measures WHERE {condition}", begin, parse_time("--end", flags.end or "now", now))


def _first_to_last(client: Client, source: _Source, name: str) -> tuple[_Source, int]:
    """The same from the first measure to the last, so that the chart is of them and not of nothing around them, and
    how many there are."""
    sql = f"SELECT min(time) AS first, max(time) AS last, count(*) AS count FROM {source.rows}"
    found = client.query(sql, source.begin, source.end)
    first, last = (found[column][0].cast(pa.int64()).as_py() for column in ("first", "last"))
    if first is None:
        raise CliError(f"no measure {name} in range: list them with  micromegas metrics, and see --begin")
    return _Source(source.rows, first, last), found["count"][0].as_py()


def _draw(name: str, buckets: pa.Table, source: _Source, step: int) -> None:
    """A chart per unit."""
    places = (source.end - source.begin) // step + 1
    for unit in sorted(set(buckets["unit"].to_pylist())):
        means: list[float | None] = [None] * places
        counts = 0
        rows = zip(*(buckets[column] for column in ("time", "unit", "count", "mean")), strict=True)
        for moment, of_unit, count, mean in rows:
            if of_unit.as_py() == unit and mean.is_valid and abs(mean.as_py()) < float("inf"):
                means[(moment.value - source.begin) // step] = mean.as_py()
                counts += count.as_py()
        if counts:
            first, last = (f"{iso_time(moment, utc=False)[:23]}Z" for moment in (source.begin, source.end))
            shown = " ".join(printable(unit).split())
            sys.stdout.write(f"{name}: {counts} measures from {first} to {last}, means of {step / 1e9:.3g} s\n")
            sys.stdout.write("\n".join(framed(means, _HEIGHT, shown)) + "\n")
