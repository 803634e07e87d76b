"""Which partitions of a view are good whose rows reach over partitions: each goes on from the one before it.

Must never take a partition that was built on another state than that of the partition in front of it, and never list
blocks that good partitions hold: a look at a thread that goes on costs what is new of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from micromegas.lake import BlockConditions, BlockRow, Metadata, Partition
from micromegas.query.bounds import TimeRange
from micromegas.query.good_partitions import is_good
from micromegas.views.block_decoding import decoded_from
from micromegas.views.block_groups import DAY, SMALL_GROUP_OBJECTS, BlockGroup, block_groups, event_bounds, takes_in
from micromegas.views.carried import (
    NO_STATE,
    NOTHING_LATER,
    CarriedIn,
    CarriedSummary,
    HandedOn,
    Later,
    Remembered,
    built_on,
    in_tick_order,
    without_later,
)
from micromegas.views.partition_writer import InsertRange, source_count, source_hash
from micromegas.views.view_set import ViewSet


class StateGone(Exception):
    """A partition was replaced before its state was read: look again."""


class CarriedLook:
    """A look at one instance: the partitions that go on from each other from the first on, and the groups of blocks
    behind them. Blocks beyond insert time `end` are not seen, but for those that a partition holds."""

    # The state is known between partitions only, so this bounds what is decoded for a look at a moment long ago.
    max_objects = 1024 * 1024
    small_objects = SMALL_GROUP_OBJECTS

    def __init__(
        self, metadata: Metadata, view_set: ViewSet, instance_id: str, source: BlockConditions, end: int
    ) -> None:
        """`source` says which blocks the instance has. Raises `StateGone`."""
        self._metadata = metadata
        self._view_set = view_set
        self._source = source
        partitions = [each for each in metadata.partitions(view_set.name, instance_id) if is_good(each, view_set)]
        self.end = max([end, *(each.end_insert_time for each in partitions)])
        kept, blocks = self._split(partitions)
        self.found = partitions[:kept]
        groups = block_groups(
            blocks,
            partitions[kept:],
            in_order=self._in_order,
            max_objects=self.max_objects,
            small_objects=self.small_objects,
        )
        self._groups = deque(groups)
        self._known = {_slot(each): each for each in partitions[kept:]}

    def may_hold(self, events: TimeRange) -> bool:
        """Whether rows may lie in this range of event time."""
        lowest = [each.min_event_time for each in self.found if each.min_event_time is not None]
        highest = [each.max_event_time for each in self.found if each.max_event_time is not None]
        if self._groups:
            begin, end = event_bounds(block for group in self._groups for block in group.blocks)
            lowest.append(begin)
            highest.append(end)
        elif self.found:
            # What the last one hands on is open since some time, and until another.
            return True
        return bool(lowest) and events.overlaps(min(lowest), max(highest))

    def next_group(self, events: TimeRange) -> BlockGroup | None:
        """Goes on over all groups that have a partition, to the first that lacks it; None at the end. Its rows are
        wanted if they may lie in `events`, what it hands on in any case."""
        while self._groups:
            group = self._groups[0]
            partition = self._known.get((group.insert_range.begin, group.insert_range.end))
            if partition is None or not self._goes_on(partition, group):
                carried_in = replace(self._carried_in(len(self.found)), with_rows=events.overlaps(*group.event_bounds))
                return replace(group, carried_in=carried_in)
            self.add(partition)
        return None

    def add(self, partition: Partition) -> None:
        """The partition of the next group."""
        self.found.append(partition)
        self._groups.popleft()

    def replace(self, partitions: Sequence[Partition]) -> None:
        """Partitions that were found, made anew."""
        new = {_slot(each): each for each in partitions}
        self.found = [new.get(_slot(each), each) for each in self.found]

    def without_rows(self, events: TimeRange) -> list[BlockGroup]:
        """The groups of found partitions that have no rows, or not those that later ends make of them, and may have
        some in `events`."""
        groups: list[BlockGroup] = []
        later = NOTHING_LATER
        for place in reversed(range(len(self.found))):
            partition = self.found[place]
            if _overlaps(partition, events):
                has_rows = partition.schema_hash != self._view_set.state_hash
                if not has_rows or not partition.source_hash.endswith(later.to_bytes()):
                    group = self._group(place, later, has_rows=has_rows)
                    groups += [] if group is None else [group]
            later = _summary(partition).before(later)
        return groups

    def in_range(self, events: TimeRange) -> list[Partition]:
        """The found partitions that have rows, and may have some in `events`."""
        return [
            each for each in self.found if each.schema_hash != self._view_set.state_hash and _overlaps(each, events)
        ]

    def state_behind(self) -> bytes | None:
        """What the last of the found partitions hands on; None without any. Raises `StateGone`."""
        return self._state(self.found[-1]) if self.found else None

    @property
    def _in_order(self) -> bool:
        return decoded_from(self._view_set).sorted_by_ticks

    def _split(self, partitions: Sequence[Partition]) -> tuple[int, list[BlockRow]]:
        """How many partitions stay whatever comes behind them, and the blocks behind these."""
        kept = self._linked(partitions)
        blocks = self._behind(partitions[:kept])
        fewer = self._untouched(partitions[:kept], blocks) if blocks else kept
        return fewer, blocks if fewer == kept else self._behind(partitions[:fewer])

    def _linked(self, partitions: Sequence[Partition]) -> int:
        """How many partitions, from the first on, go on from the one before. A partition covers all blocks between the
        one that it was built on and its own end, as none becomes visible in the past."""
        if not partitions:
            return 0
        before = self._source | {"insert_end": partitions[0].begin_insert_time}
        # Retention took what the first was built on, unless there are blocks to make that of.
        if built_on(partitions[0].source_hash) != NO_STATE and self._metadata.blocks(**before, limit=1):
            return 0
        for place in range(1, len(partitions)):
            if built_on(partitions[place].source_hash) != _summary(partitions[place - 1]).digest:
                return place
        return len(partitions)

    def _untouched(self, partitions: Sequence[Partition], blocks: Sequence[BlockRow]) -> int:
        """How many partitions don't become one with the blocks behind them: those in front of the first that a late
        block reaches over, and of the small ones at the end. What lost blocks can't become anything else."""
        count = len(partitions)
        outliving = 0
        if self._in_order:
            first_of_stream: dict[str, tuple[int, int, str]] = {}
            for block in blocks:
                known = first_of_stream.get(block.stream_id)
                first_of_stream[block.stream_id] = min(in_tick_order(block), known or in_tick_order(block))
            for place, partition in enumerate(partitions):
                latest = _summary(partition).latest
                if any(first < latest[stream] for stream, first in first_of_stream.items() if stream in latest):
                    outliving = self._outliving(partitions)
                    count = max(place, outliving)
                    break
        objects = sum(block.nb_objects for block in blocks)
        day = blocks[0].insert_time // DAY
        while count > outliving and partitions[count - 1].begin_insert_time // DAY == day:
            before = _summary(partitions[count - 1]).objects
            if not takes_in(objects, before, self.max_objects, self.small_objects):
                break
            objects += before
            count -= 1
        return count

    def _outliving(self, partitions: Sequence[Partition]) -> int:
        """How many partitions, from the first on, hold blocks that are gone, as their rows may be kept for longer."""
        for place, partition in enumerate(partitions):
            left = self._metadata.count_blocks(
                **self._source | {"insert_begin": partition.begin_insert_time, "insert_end": partition.end_insert_time}
            )
            if left >= source_count(partition.source_hash):
                return place
        return len(partitions)

    def _behind(self, partitions: Sequence[Partition]) -> list[BlockRow]:
        conditions = self._source | {"insert_end": self.end}
        if partitions:
            conditions["insert_begin"] = partitions[-1].end_insert_time
        return self._metadata.blocks(**conditions)

    def _goes_on(self, partition: Partition, group: BlockGroup) -> bool:
        """Whether a partition is made of the group's blocks and of what the last found one hands on."""
        digest = _summary(self.found[-1]).digest if self.found else b""
        # What came before the very first was removed by retention, and its state with it, but not from the partition.
        return partition.source_hash.startswith(group.blocks_hash + digest)

    def _carried_in(self, place: int) -> CarriedIn:
        """What the partition at this place of the found ones goes on from."""
        if not place:
            return CarriedIn()
        before = self.found[place - 1]
        return CarriedIn(self._state(before), _summary(before).digest)

    def _group(self, place: int, later: Later, *, has_rows: bool) -> BlockGroup | None:
        """The group of a found partition whose rows are to be made; None where they should stay what they are."""
        partition = self.found[place]
        insert_range = InsertRange(partition.begin_insert_time, partition.end_insert_time)
        blocks = self._metadata.blocks(
            **self._source | {"insert_begin": insert_range.begin, "insert_end": insert_range.end}
        )
        blocks_hash = source_hash(blocks)
        carried_in = replace(self._carried_in(place), later=later)
        if without_later(partition.source_hash) == blocks_hash + carried_in.digest:
            return BlockGroup(tuple(blocks), insert_range, blocks_hash, carried_in)
        if has_rows or not blocks:
            return None
        # Retention took some of the blocks, or the state in front of them.
        blocks_hash = partition.source_hash[: len(blocks_hash)]
        handed_on = HandedOn(self._state(partition), _summary(partition))
        carried_in = replace(
            carried_in, digest=built_on(partition.source_hash), remembered=Remembered(blocks_hash, handed_on)
        )
        return BlockGroup(tuple(blocks), insert_range, blocks_hash, carried_in)

    def _state(self, partition: Partition) -> bytes:
        state = self._metadata.carried_state(partition.partition_id)
        if state is None:
            raise StateGone(partition.partition_id)
        return state


def _summary(partition: Partition) -> CarriedSummary:
    summary = CarriedSummary.read(partition.carries)
    if summary is None:
        raise ValueError(f"partition {partition.partition_id} hands nothing on")
    return summary


def _overlaps(partition: Partition, events: TimeRange) -> bool:
    lowest, highest = partition.min_event_time, partition.max_event_time
    return lowest is not None and highest is not None and events.overlaps(lowest, highest)


def _slot(partition: Partition) -> tuple[int, int]:
    return partition.begin_insert_time, partition.end_insert_time
