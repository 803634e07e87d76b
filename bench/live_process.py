"""What a look at a live thread costs, each after a few new events, while its history grows: it should not grow with it.

`python bench/live_process.py [--looks N]` commits 200 events (a frame or so a second makes as many), then asks for the
spans of the last moments, N times; then gives the thread much more history, and does it again. Prints CPU milliseconds
per look (median) of both, beside decoding the new events alone, and the ratio; the aim is at most 1.5.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from frames import FrameThreads

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryRequest
from micromegas.views.block_decoding import DecodedBlocks
from micromegas.views.carried import CarriedIn
from micromegas.views.thread_spans import THREAD_SPANS

AIM = 1.5
NEW_EVENTS = 200
HISTORY_BLOCK_EVENTS = 500
COMMIT_BLOCKS = 50


class LiveThread:
    """A thread, and who looks at it."""

    def __init__(self, lake: Lake, engine: QueryEngine) -> None:
        self._lake = lake
        self._engine = engine
        self._threads = FrameThreads(1)
        self._stream = self._threads.streams[0]
        lake.commit(self._threads.announcement())

    def grow(self, events: int, block_events: int) -> None:
        """More events, some blocks a commit."""
        blocks = self._threads.blocks(self._stream, events, block_events)
        for start in range(0, len(blocks), COMMIT_BLOCKS):
            batch = self._threads.announcement()
            batch.blocks.extend(blocks[start : start + COMMIT_BLOCKS])
            self._lake.commit(batch)

    def look(self) -> float:
        """CPU seconds (all threads) of a look at the last moments."""
        end = self._threads.end_time(self._stream)
        sql = f"SELECT count(*), max(duration) FROM view_instance('thread_spans', '{self._stream.stream_id}')"

        async def rows() -> int:
            stream = await self._engine.execute(QueryRequest(sql, begin=end - 10_000_000, end=end))
            return int(next(iter([batch async for batch in stream]))[0][0].as_py())

        begin = time.process_time()
        found = asyncio.run(rows())
        took = time.process_time() - begin
        if not found:
            raise AssertionError("the newest spans are missing")
        return took

    def looks(self, count: int) -> float:
        """CPU milliseconds per look, each after new events."""
        self.look()
        costs = []
        for _ in range(count):
            self.grow(NEW_EVENTS, NEW_EVENTS)
            costs.append(self.look())
        return statistics.median(costs) * 1000

    def decoding(self) -> float:
        """CPU milliseconds of decoding the newest block, without a query."""
        blocks = self._lake.metadata.blocks(stream_id=self._stream.stream_id)[-1:]
        begin = time.process_time()
        for _ in DecodedBlocks(self._lake, THREAD_SPANS, self._stream.stream_id, blocks, carried_in=CarriedIn(None)):
            pass
        return (time.process_time() - begin) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--history", type=int, default=3_000_000, help="events that the thread has at the end")
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="micromegas-bench-")
    with folder as name, Lake.open(LakeSettings(lake_dir=Path(name))) as lake:
        engine = QueryEngine(lake, QuerySettings())
        try:
            thread = LiveThread(lake, engine)
            thread.grow(20_000, HISTORY_BLOCK_EVENTS)
            young = thread.looks(arguments.looks)
            thread.grow(arguments.history, HISTORY_BLOCK_EVENTS)
            old = thread.looks(arguments.looks)
            alone = thread.decoding()
        finally:
            engine.close()
    print(
        f"a look after {NEW_EVENTS} new events: {young:.1f} ms of CPU with 20,000 events before them, "
        f"{old:.1f} ms with {arguments.history:,}; decoding the new ones alone {alone:.1f} ms"
    )
    print(f"ratio {old / young:.2f}, aim at most {AIM}: {'yes' if old <= AIM * young else 'no'}")
    return 0 if old <= AIM * young else 1


if __name__ == "__main__":
    sys.exit(main())
