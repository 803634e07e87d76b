"""A made process in a lake: one stream per kind, its events at known times."""

from __future__ import annotations

from random import Random
from typing import Any

from e2e.made_traffic import START_TIME, MadeProcess, MadeStream, block_request

from micromegas.lake import Lake, Partition
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet
from micromegas.wire import Batch, Block, Process, Stream


class MadeTraffic:
    """Commits what it is told; events of a stream are 1 ns apart."""

    def __init__(self, lake: Lake, seed: int = 1) -> None:
        self._lake = lake
        made = MadeProcess(Random(seed), exe=f"program-{seed}")
        self.process_id: str = made.process_id
        self.log: MadeStream = made.stream("log")
        self.metrics: MadeStream = made.stream("metrics")
        self.thread: MadeStream = made.stream("cpu")
        streams = [self.log, self.metrics, self.thread]
        lake.commit(
            Batch(
                [Process.decode(made.request().body)], [Stream.decode(stream.request().body) for stream in streams], []
            )
        )

    def next_log_time(self) -> int:
        """Event time (ns) of the first message of the next `logs`."""
        return START_TIME + self.log.now

    def logs(self, *messages: str) -> Block:
        return self.commit(self.log.logs(messages))

    def values(self, *values: float) -> Block:
        return self.commit(self.metrics.measures(values))

    def broken_logs(self) -> Block:
        fields = self.log.logs(["never seen"])
        fields["payload"]["objects"] = b"\x00not lz4\xff"
        return self.commit(fields)

    def commit(self, fields: dict[str, Any]) -> Block:
        block = Block.decode(block_request(fields).body)
        self._lake.commit(Batch([], [], [block]))
        return block


def materialize(lake: Lake, view_set: ViewSet, pieces: int = 1) -> list[Partition]:
    """Partitions over all blocks of a global view that none covers, about `pieces` of them."""
    assert view_set.decoded is not None
    covered = lake.metadata.partitions(view_set.name, GLOBAL_INSTANCE)
    blocks = [
        block
        for block in lake.metadata.blocks(tag=view_set.decoded.stream_tag)
        if not any(each.begin_insert_time <= block.insert_time < each.end_insert_time for each in covered)
    ]
    size = -(-len(blocks) // pieces)
    built = []
    for start in range(0, len(blocks), size):
        part = blocks[start : start + size]
        insert_range = InsertRange(part[0].insert_time, part[-1].insert_time + 1)
        built.append(build_partition(lake, PartitionSlot(view_set, GLOBAL_INSTANCE, insert_range, frozenset()), part))
    return built
