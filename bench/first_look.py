"""What the first look at the spans of a thread costs, and the second, beside pyarrow writing and reading the same rows.

`python bench/first_look.py [--events N] [--history M]` asks for a thread of N events whole (the aim for a million:
1 s, then 50 ms), and then for the newest N events of a thread that had M before, and for as many older ones.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from frames import FrameThreads

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryRequest
from micromegas.views.partition_writer import RowFile
from micromegas.views.thread_spans import THREAD_SPANS

FIRST_S, SECOND_S = 1.0, 0.05
EVER = 2**62
# A millisecond between two events: a thread of hours.
PACE = 100
COMMIT_BLOCKS = 10


def look(engine: QueryEngine, stream_id: str, begin: int, end: int, what: str) -> float:
    """Asks for the spans in range; prints and returns the wall seconds."""
    sql = f"SELECT count(*), sum(duration) FROM view_instance('thread_spans', '{stream_id}')"

    async def rows() -> int:
        stream = await engine.execute(QueryRequest(sql, begin=begin, end=end))
        return int(next(iter([batch async for batch in stream]))[0][0].as_py())

    wall, cpu = time.perf_counter(), time.process_time()
    count = asyncio.run(rows())
    took = time.perf_counter() - wall
    print(f"{what:62} {count:>9,} spans {took:7.3f} s wall {time.process_time() - cpu:7.3f} s CPU")
    return took


def floor(lake: Lake, stream_id: str, folder: Path) -> None:
    """The rows of the thread's partitions, written and read by pyarrow alone."""
    root = lake.objects.local_root
    assert root is not None
    partitions = lake.metadata.partitions("thread_spans", stream_id)
    tables = [pq.read_table(root / each.file_path) for each in partitions if each.file_path is not None]
    cpu = time.process_time()
    row_file = RowFile(folder / "floor.parquet", THREAD_SPANS)
    for table in tables:
        row_file.write(table.cast(THREAD_SPANS.schema))
    row_file.close()
    written = time.process_time()
    pq.read_table(folder / "floor.parquet", columns=["begin", "end", "duration"])
    print(
        f"floor, pyarrow: written {written - cpu:.3f} s CPU, three columns read {time.process_time() - written:.3f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--history", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="micromegas-bench-") as name:
        folder = Path(name)
        with Lake.open(LakeSettings(lake_dir=folder / "lake")) as lake:
            engine = QueryEngine(lake, QuerySettings())
            threads = FrameThreads(2)
            short, long = threads.streams
            lake.commit(threads.announcement())
            for stream, events in ((short, arguments.events), (long, arguments.history + arguments.events)):
                blocks = threads.blocks(stream, events, pace=PACE)
                for start in range(0, len(blocks), COMMIT_BLOCKS):
                    batch = threads.announcement()
                    batch.blocks.extend(blocks[start : start + COMMIT_BLOCKS])
                    lake.commit(batch)
            try:
                first = look(engine, short.stream_id, 0, EVER, "a thread, first look")
                second = look(engine, short.stream_id, 0, EVER, "a thread, second look")
                floor(lake, short.stream_id, folder)
                end = threads.end_time(long)
                begin = end - long.now * arguments.events // (arguments.history + arguments.events)
                old = begin - 3 * (end - begin)
                recent = f"the newest {arguments.events:,} events of a long thread"
                look(engine, long.stream_id, begin, end, f"{recent}, first look at it")
                look(engine, long.stream_id, begin, end, f"{recent}, again")
                look(engine, long.stream_id, old, old + (end - begin), "as many older ones, first look at them")
            finally:
                engine.close()
    within = first <= FIRST_S * arguments.events / 1e6 and second <= SECOND_S
    print(f"within {FIRST_S} s per million events, then {SECOND_S} s: {'yes' if within else 'no'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
