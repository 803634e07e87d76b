"""Group commit: everything that arrives while a commit is in flight goes into the next one.

There is no timer: a lane starts as soon as something waits, so nothing is delayed at low load. It must never confirm an
item before the sink has, and never hold more than its bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from micromegas.config import IngestSettings
from micromegas.wire import Batch, BatchSink, Block, Process, SinkUnavailable, Stream

Item = Process | Stream | Block | Batch
"""What is committed whole or not at all."""
logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """The bounds on what waits are reached: the sender must come again."""


class ItemRefused(Exception):
    """The sink failed on this very item, while it may well take others."""


@dataclass(slots=True)
class _Waiting:
    item: Item
    size: int
    done: asyncio.Future[None]


class GroupCommit:
    """Queue and lanes in front of a sink. Belongs to one event loop; only the commits themselves run in threads."""

    def __init__(self, sink: BatchSink, settings: IngestSettings) -> None:
        self._sink = sink
        self._settings = settings
        self._lanes = settings.lanes or sink.advised_lanes
        self._threads = ThreadPoolExecutor(self._lanes, thread_name_prefix="ingest-commit")
        self._queue: deque[_Waiting] = deque()
        self._lane_tasks: set[asyncio.Task[None]] = set()
        self._rows = 0
        self._bytes = 0

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is being committed."""
        return not self._queue and not self._lane_tasks

    def reserve(self, size: int) -> None:
        """Count bytes against the bound before they are kept; raises `QueueFull`, counting nothing."""
        if self._bytes + size > self._settings.queue_bytes:
            raise QueueFull(f"{self._bytes} bytes wait already")
        self._bytes += size

    def release(self, size: int) -> None:
        """Give reserved bytes back."""
        self._bytes -= size

    async def commit(self, item: Item, size: int) -> None:
        """Wait until an item (whose `size` bytes the caller has reserved) is durable.

        Raises `QueueFull`, `SinkUnavailable` (both passing), or `ItemRefused`.
        """
        if self._rows >= self._settings.queue_rows:
            raise QueueFull(f"{self._rows} requests wait already")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, size, loop.create_future())
        self._rows += 1
        try:
            self._queue.append(waiting)
            if len(self._lane_tasks) < self._lanes:
                # The task first runs after everything that is ready now: requests read in one turn go together.
                lane = loop.create_task(self._run_lane())
                self._lane_tasks.add(lane)
                lane.add_done_callback(self._lane_tasks.discard)
            await waiting.done
        finally:
            self._rows -= 1

    async def drain(self) -> None:
        """Wait until everything queued is committed."""
        while self._lane_tasks:
            await asyncio.wait(self._lane_tasks)

    def close(self) -> None:
        """Start no further commits; one that hangs is left behind."""
        self._threads.shutdown(wait=False)

    async def _run_lane(self) -> None:
        while self._queue:
            await self._commit_group(self._take_group())

    def _take_group(self) -> list[_Waiting]:
        """The longest waiting items, up to the bounds of one commit, but at least one."""
        group: list[_Waiting] = []
        size = 0
        while self._queue and len(group) < self._settings.batch_rows:
            if group and size + self._queue[0].size > self._settings.batch_bytes:
                break
            waiting = self._queue.popleft()
            size += waiting.size
            group.append(waiting)
        return group

    async def _commit_group(self, group: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._sink.commit, _batch_of(group))
        except SinkUnavailable as error:
            logger.warning("%d items not committed: %s", len(group), error)
            _fail(group, SinkUnavailable())
        except Exception as error:
            if len(group) > 1:
                # One item that the sink cannot take must not fail its neighbours, now and at every retry.
                middle = len(group) // 2
                await self._commit_group(group[:middle])
                await self._commit_group(group[middle:])
            else:
                logger.exception("the sink refused an item")
                _fail(group, ItemRefused(type(error).__name__))
        else:
            for waiting in group:
                # A request whose client went away has no one to tell.
                if not waiting.done.done():
                    waiting.done.set_result(None)


def _batch_of(group: list[_Waiting]) -> Batch:
    processes: list[Process] = []
    streams: list[Stream] = []
    blocks: list[Block] = []
    for waiting in group:
        item = waiting.item
        if isinstance(item, Block):
            blocks.append(item)
        elif isinstance(item, Stream):
            streams.append(item)
        elif isinstance(item, Batch):
            processes.extend(item.processes)
            streams.extend(item.streams)
            blocks.extend(item.blocks)
        else:
            processes.append(item)
    return Batch(processes, streams, blocks)


def _fail(group: list[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
