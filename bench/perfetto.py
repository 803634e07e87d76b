"""What a trace for Perfetto costs, cold (nothing built yet) and again, beside reading the same rows and writing the
same bytes.

`python bench/perfetto.py [FOLDER] [--events N]` makes a process of N span events on four threads in a lake below FOLDER
and prints wall and CPU seconds (all threads of this process). The aim is 1.5 s for a cold trace of a million events.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from frames import FrameThreads

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryRequest

AIM_S = 1.5
THREADS = 4
Result = TypeVar("Result")


def process_of(lake: Lake, events: int) -> str:
    """Commits the process; returns its id."""
    process = FrameThreads(THREADS)
    batch = process.announcement()
    for stream in process.streams:
        batch.blocks.extend(process.blocks(stream, events // THREADS))
    lake.commit(batch)
    return process.process_id


def timed(what: str, work: Callable[[], Result]) -> tuple[Result, float]:
    """Runs and prints; the wall seconds."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall = time.perf_counter() - begin
    print(f"{what:45} {wall:7.3f} s wall {time.process_time() - cpu:7.3f} s CPU")
    return result, wall


def trace(engine: QueryEngine, process_id: str) -> bytes:
    sql = (
        f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('{process_id}', 'all', "
        "'2000-01-01T00:00:00Z', '2100-01-01T00:00:00Z')"
    )

    async def chunks() -> list[bytes]:
        stream = await engine.execute(QueryRequest(sql))
        return [data for batch in [each async for each in stream] for data in batch["chunk_data"].to_pylist()]

    return b"".join(asyncio.run(chunks()))


def partitions(lake: Lake) -> list[Path]:
    root = lake.objects.local_root
    assert root is not None
    return [root / each.file_path for each in lake.metadata.all_partitions() if each.file_path is not None]


def read(files: list[Path]) -> int:
    rows = 0
    for file in files:
        rows += pq.read_table(file).num_rows
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the lake may lie for a while")
    parser.add_argument("--events", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory(dir=arguments.folder)
    with folder as name, Lake.open(LakeSettings(lake_dir=Path(name))) as lake:
        process_id = process_of(lake, arguments.events)
        engine = QueryEngine(lake, QuerySettings())
        try:
            asyncio.run(_warm(engine))
            print(f"{arguments.events} events, {THREADS} threads, {pa.cpu_count()} cores")
            data, cold = timed("trace, cold", lambda: trace(engine, process_id))
            _, again = timed("trace, again", lambda: trace(engine, process_id))
            rows, reading = timed("floor: the same rows read by pyarrow", lambda: read(partitions(lake)))
            _, writing = timed("floor: the same bytes written", lambda: (Path(name) / "trace").write_bytes(data))
        finally:
            engine.close()
    floor = reading + writing
    print(f"{rows} spans, {len(data) / rows:.1f} bytes per span")
    print(f"again / floor {again / floor:.1f}; cold / aim {cold * 1e6 / arguments.events / AIM_S:.2f}")


async def _warm(engine: QueryEngine) -> None:
    async for _ in await engine.execute(QueryRequest("SELECT 1")):
        pass


if __name__ == "__main__":
    main()
