"""Recorded and made traffic, committed to a lake without a server between."""

from __future__ import annotations

from random import Random
from typing import Any

import senders
from codec.block_maker import DEPENDENCIES, BlockMaker
from e2e.recordings import Recording

from micromegas.lake import Lake
from micromegas.wire import Batch, Block, Process, Stream


def commit_recording(lake: Lake, recorded: Recording, seed: int) -> None:
    """Each request in a commit of its own, in an order that depends on the seed."""
    requests = list(recorded.requests)
    Random(seed).shuffle(requests)
    for request in requests:
        match request.path.rsplit("/", 1)[1]:
            case "insert_process":
                lake.commit(Batch([Process.decode(request.body)], [], []))
            case "insert_stream":
                lake.commit(Batch([], [Stream.decode(request.body)], []))
            case _:
                lake.commit(Batch([], [], [Block.decode(request.body)]))


class MadeStream:
    """A stream of a made process whose records have the types `objects`. One tick is one nanosecond, and ticks of
    events count from the start of the process, as those of blocks do."""

    def __init__(self, lake: Lake, tag: str, objects: tuple[dict[str, Any], ...], of: Process | None = None) -> None:
        self.process = of or senders.process(start_ticks=0)
        self._lake = lake
        self._objects = objects
        self.position = 0
        metadata = self.maker().metadata()
        self.stream = senders.stream(
            self.process.process_id, tags=[tag], dependencies_metadata=metadata[0], objects_metadata=metadata[1]
        )
        lake.commit(Batch([self.process] if of is None else [], [self.stream], []))

    @property
    def process_id(self) -> str:
        return self.process.process_id

    def maker(self) -> BlockMaker:
        return BlockMaker(self._objects, DEPENDENCIES)

    def block(self, maker: BlockMaker, nb_objects: int, begin: int, end: int, **changes: Any) -> Block:
        """A block of ticks [begin, end], not yet committed; it takes the next places in the stream."""
        made = senders.block(
            self.stream,
            begin_ticks=begin,
            end_ticks=end,
            begin_time=senders.START_TIME + begin,
            end_time=senders.START_TIME + end,
            payload=maker.payload(),
            object_offset=self.position,
            nb_objects=nb_objects,
            **changes,
        )
        self.position += nb_objects
        return made

    def commit(self, *blocks: Block) -> None:
        """Each in a commit of its own."""
        for block in blocks:
            self._lake.commit(Batch([], [], [block]))
