"""Our query beside bare DataFusion over the same files.

`python bench/query.py` makes a lake of log entries and measures, materializes it, and runs each statement through
`QueryEngine` (guard, two planning passes, metadata, checks of the files) and through a plain `SessionContext` that was
handed the same files. Prints the best wall and CPU time of both and the ratio; the aim is 10 % + 10 ms at most.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datafusion import SessionConfig, SessionContext
from traffic import Replica, load_scenario

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryRequest
from micromegas.query.listing_plan import ListingPlan
from micromegas.views.block_groups import block_groups
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.partition_writer import PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE

STATEMENTS = {
    "count": "SELECT count(*) FROM log_entries",
    "levels": "SELECT level, count(*) FROM log_entries GROUP BY level ORDER BY level",
    "search": "SELECT time, msg FROM log_entries WHERE msg LIKE '%17%' ORDER BY time",
    "newest": "SELECT time, level, target, msg FROM log_entries WHERE level <= 4 ORDER BY time DESC LIMIT 50",
    "series": "SELECT date_bin(INTERVAL '10 milliseconds', time) t, avg(value), max(value) FROM measures GROUP BY t",
    "spread": "SELECT name, stddev(value), min(value), max(value) FROM measures GROUP BY name",
    "rows": "SELECT * FROM measures",
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("scenario", type=Path, help="folder of recorded requests (the service vector)")
    arguments.add_argument("--replicas", type=int, default=20)
    arguments.add_argument("--runs", type=int, default=7)
    options = arguments.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="micromegas-bench-")
    with folder, Lake.open(LakeSettings(lake_dir=Path(folder.name))) as lake:
        urls = fill(lake, options.scenario, options.replicas)
        return compare(lake, urls, options.runs)


def fill(lake: Lake, scenario: Path, replicas: int) -> dict[str, list[str]]:
    """Materialized global views; URLs of their files."""
    batch = load_scenario(scenario)
    for number in range(replicas):
        lake.commit(Replica(number).of(batch))
    urls: dict[str, list[str]] = {}
    for view_set, tag in ((LOG_ENTRIES, "log"), (MEASURES, "metrics")):
        for group in block_groups(lake.metadata.blocks(tag=tag), max_objects=500_000):
            slot = PartitionSlot(view_set, GLOBAL_INSTANCE, group.insert_range, frozenset())
            partition = build_partition(lake, slot, group.blocks)
            assert partition.file_path is not None
            urls.setdefault(view_set.name, []).append(lake.objects.url_of(partition.file_path))
    return urls


def compare(lake: Lake, urls: dict[str, list[str]], runs: int) -> int:
    engine = QueryEngine(lake, QuerySettings())
    bare = bare_context(urls)
    within = True
    print(f"{'statement':<10}{'rows':>10}{'ours ms':>10}{'bare ms':>10}{'ratio':>8}{'ours CPU':>10}{'bare CPU':>10}")
    for name, sql in STATEMENTS.items():
        ours = measured(lambda sql=sql: asyncio.run(run(engine, sql)), runs)  # type: ignore[misc]
        theirs = measured(lambda sql=sql: run_bare(bare, sql), runs)  # type: ignore[misc]
        if ours.rows != theirs.rows:
            raise AssertionError(f"{name}: {ours.rows} rows where {theirs.rows} are right")
        within &= ours.wall_ms <= theirs.wall_ms * 1.1 + 10
        print(
            f"{name:<10}{ours.rows:>10}{ours.wall_ms:>10.1f}{theirs.wall_ms:>10.1f}"
            f"{ours.wall_ms / theirs.wall_ms:>8.2f}{ours.cpu_ms:>10.1f}{theirs.cpu_ms:>10.1f}"
        )
    engine.close()
    print("within 10 % + 10 ms:", "yes" if within else "no")
    return 0 if within else 1


def bare_context(urls: dict[str, list[str]]) -> SessionContext:
    config = SessionConfig(
        {
            "datafusion.execution.time_zone": "+00:00",
            "datafusion.execution.batch_size": "32768",
            "datafusion.execution.collect_statistics": "false",
            "datafusion.execution.parquet.pushdown_filters": "true",
            "datafusion.execution.parquet.reorder_filters": "true",
        }
    )
    context = SessionContext(config)
    for view_set in (LOG_ENTRIES, MEASURES):
        table = ListingPlan(context, view_set.schema).table(context, f"{view_set.name}_files", urls[view_set.name])
        context.register_table(view_set.name, table.into_view())
    return context


async def run(engine: QueryEngine, sql: str) -> int:
    stream = await engine.execute(QueryRequest(sql))
    return sum([batch.num_rows async for batch in stream])


def run_bare(context: SessionContext, sql: str) -> int:
    return sum(batch.num_rows for batch in pa.RecordBatchReader.from_stream(context.sql(sql)))


@dataclass(frozen=True, slots=True)
class Measured:
    """The best of several runs."""

    rows: int
    wall_ms: float
    cpu_ms: float


def measured(work: Callable[[], int], runs: int) -> Measured:
    rows = work()
    walls, cpus = [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return Measured(rows, min(walls), min(cpus))


if __name__ == "__main__":
    sys.exit(main())
