"""What a trace for Perfetto costs, cold (nothing built yet) and again, beside reading the same rows and writing the
same bytes.

`python bench/perfetto.py [FOLDER] [--events N]` makes a process of N span events on four threads in a lake below FOLDER
and prints wall and CPU seconds (all threads of this process). The aim is 1.5 s for a cold trace of a million events.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import made_traffic as made

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryRequest
from micromegas.wire import Batch, Block, Process, Stream

AIM_S = 1.5
THREADS = 4
BLOCK_EVENTS = 10_000
NAMES = ("frame", "update", "render", "draw", "physics", "audio", "network", "script")
# A frame: its spans by name, begins and ends, about as deep as programs are.
STEPS = ["0(", "1(", "4(", "4)", "7(", "6(", "6)", "7)", "1)", "2(", "3(", "3)", "3(", "3)", "2)", "5(", "5)", "0)"]
EVENT = np.dtype([("kind", "u1"), ("scope", "<u8"), ("time", "<i8")])
Result = TypeVar("Result")


def dependencies() -> bytes:
    """The texts and scopes that the blocks refer to."""
    texts = b"".join(made.text_dependency(10 + number, name) for number, name in enumerate(NAMES))
    texts += made.text_dependency(1, "game::engine") + made.text_dependency(2, "src/engine.rs")
    scopes = b"".join(
        b"\x01" + np.array([100 + number, 10 + number, 1, 2], "<u8").tobytes() + np.uint32(number).tobytes()
        for number in range(len(NAMES))
    )
    return texts + scopes


def process_of(lake: Lake, events: int) -> str:
    """Commits the process; returns its id."""
    random = np.random.default_rng(1)
    process = made.MadeProcess(Random(1), exe="bench")
    streams = [
        process.stream("cpu", **{"thread-name": f"thread{number}", "thread-id": str(number + 1)})
        for number in range(THREADS)
    ]
    batch = Batch(
        [Process.decode(process.request().body)], [Stream.decode(each.request().body) for each in streams], []
    )
    frame = np.zeros(len(STEPS), EVENT)
    frame["kind"] = [step[1] == ")" for step in STEPS]
    frame["scope"] = [100 + int(step[0]) for step in STEPS]
    per_thread = events // THREADS // len(STEPS)
    for stream in streams:
        rows = np.tile(frame, per_thread)
        elapsed = np.cumsum(random.integers(200, 20_000, len(rows)))
        for start in range(0, len(rows), BLOCK_EVENTS):
            block = rows[start : start + BLOCK_EVENTS].copy()
            block["time"] = made.START_TICKS + 1000 + elapsed[start : start + BLOCK_EVENTS]
            last = int(block["time"][-1]) - made.START_TICKS
            fields = stream.fields(dependencies(), block.tobytes(), len(block), last - stream.now)
            batch.blocks.append(Block.decode(made.block_request(fields).body))
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
