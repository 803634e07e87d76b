"""`log_stats` beside the GROUP BY over `log_entries` that it saves, and what keeping it costs.

`python bench/log_stats.py` makes a day of logs (`--minutes`, `--events` a minute), lets the daemon's work be done after
each hour (`--step` minutes: 1 for what it costs a daemon that is never away), and asks the same question both ways.
Prints the CPU time of the two, their ratio, the bytes of both views, and the CPU time that keeping each of them took
per minute and per million events.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

# In place of this folder, whose `query` would hide that of the tests.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from daemon.log_minutes import GROUPED, LEVELS, TARGETS, LogMinutes, keep_logs, keep_stats
from daemon.telemetry import HandClock
from query.asking import ask

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.insert_clock import MINUTE, SECOND
from micromegas.lake import Lake
from micromegas.query import QueryEngine

RUNS = 7


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=int, default=1440)
    arguments.add_argument("--events", type=int, default=1000, help="a minute")
    arguments.add_argument("--step", type=int, default=60, help="minutes between two rounds of the daemon")
    options = arguments.parse_args()
    clock = HandClock()
    folder = tempfile.TemporaryDirectory(prefix="micromegas-bench-")
    with folder, Lake.open(LakeSettings(lake_dir=Path(folder.name)), clock) as lake:
        engine = QueryEngine(lake, QuerySettings())
        try:
            keep(lake, engine, clock, options.minutes, events=options.events, step=options.step)
            compare(lake, engine)
        finally:
            engine.close()
    return 0


def keep(lake: Lake, engine: QueryEngine, clock: HandClock, minutes: int, *, events: int, step: int) -> None:
    """A minute of logs after the other, put into partitions every `step` minutes."""
    process = LogMinutes(lake)
    random = Random(1)
    cpu = {"log_entries": 0.0, "log_stats": 0.0}
    for minute in range(minutes):
        process.send([(minute, random.choice(LEVELS), random.choice(TARGETS)) for _ in range(events)])
        clock.now += MINUTE if minute else MINUTE + 3 * SECOND
        if (minute + 1) % step == 0 or minute + 1 == minutes:
            cpu["log_entries"] += cpu_of(lambda: keep_logs(lake, clock))
            cpu["log_stats"] += cpu_of(lambda: keep_stats(lake, engine, clock))
    millions = minutes * events / 1e6
    for view, seconds in cpu.items():
        print(
            f"keeping {view:<12} {seconds:8.2f} CPU s of {minutes} minutes: {1000 * seconds / minutes:6.1f} ms each, "
            f"{seconds / millions:6.2f} s per million events"
        )
        partitions = lake.metadata.partitions(view, "global")
        size = sum(each.file_size for each in partitions)
        print(
            f"        {view:<12} {size:>10} bytes, {sum(each.num_rows for each in partitions)} rows, "
            f"{len(partitions)} partitions"
        )


def compare(lake: Lake, engine: QueryEngine) -> None:
    question = "SELECT level, target, sum(count) AS n FROM {} GROUP BY 1, 2"
    asked = {"GROUP BY": f"({GROUPED})", "log_stats": "log_stats"}
    answers = {name: ask(engine, question.format(table)).to_pylist() for name, table in asked.items()}
    rows = [sorted(tuple(row.values()) for row in answer) for answer in answers.values()]
    if rows[0] != rows[1]:
        raise AssertionError(f"{rows[0]} is not {rows[1]}")
    best: dict[str, float] = {}
    for name, table in asked.items():
        best[name] = min(cpu_of(lambda table=table: ask(engine, question.format(table))) for _ in range(RUNS))  # type: ignore[misc]
        print(f"{name:<10} {1000 * best[name]:8.1f} CPU ms")
    print(f"ratio      {best['GROUP BY'] / best['log_stats']:8.1f}")


def cpu_of(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    sys.exit(main())
