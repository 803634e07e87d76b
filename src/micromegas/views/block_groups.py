"""How the blocks of a view instance are cut into partitions: always the same way for the same blocks, so that two
servers agree and that only the last partition of a live process ever changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from micromegas.lake import BlockRow
from micromegas.views.partition_writer import InsertRange, source_hash

MAX_GROUP_OBJECTS = 4_000_000
DAY = 86_400_000_000_000

# Times of events come from ticks and a frequency, times of blocks from the sender's wall clock. They drift apart by
# some ppm and by corrections of the clock, so a block may hold events this far outside of its own times.
EVENT_TIME_MARGIN = 300_000_000_000


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks of one future partition, in order of insert time, with the insert range that only they lie in."""

    blocks: Sequence[BlockRow]
    insert_range: InsertRange
    source_hash: bytes

    @property
    def event_bounds(self) -> tuple[int, int]:
        """Earliest and latest event time (ns) that the blocks may hold."""
        return (
            min(block.begin_time for block in self.blocks) - EVENT_TIME_MARGIN,
            max(block.end_time for block in self.blocks) + EVENT_TIME_MARGIN,
        )


def block_groups(
    blocks: Iterable[BlockRow], max_objects: int = MAX_GROUP_OBJECTS, bucket: int = DAY
) -> list[BlockGroup]:
    """Cuts blocks in insert order into groups of at most `max_objects` events where that is possible.

    Blocks of one insert time stay together (a range can't part them), and no group crosses a multiple of `bucket` (ns);
    with midnights UTC, the retention of whole days doesn't move the cuts of what remains.
    """
    groups: list[BlockGroup] = []
    current: list[BlockRow] = []
    objects = 0
    for moment in _by_insert_time(blocks):
        added = sum(block.nb_objects for block in moment)
        if current and (
            objects + added > max_objects or moment[0].insert_time // bucket != current[0].insert_time // bucket
        ):
            groups.append(_group(current))
            current, objects = [], 0
        current.extend(moment)
        objects += added
    if current:
        groups.append(_group(current))
    return groups


def _by_insert_time(blocks: Iterable[BlockRow]) -> Iterator[list[BlockRow]]:
    moment: list[BlockRow] = []
    for block in blocks:
        if moment and block.insert_time != moment[0].insert_time:
            yield moment
            moment = []
        moment.append(block)
    if moment:
        yield moment


def _group(blocks: list[BlockRow]) -> BlockGroup:
    return BlockGroup(
        tuple(blocks), InsertRange(blocks[0].insert_time, blocks[-1].insert_time + 1), source_hash(blocks)
    )
