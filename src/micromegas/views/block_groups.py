"""How the blocks of a view instance are cut into partitions: along those that are there already, so that two servers
agree, and that a process which goes on costs what is new of it and not what was."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from micromegas.lake import STAMP_MARGIN, BlockRow, Partition
from micromegas.views.carried import CarriedIn, TickOrder, in_tick_order
from micromegas.views.partition_writer import InsertRange, source_hash

MAX_GROUP_OBJECTS = 4_000_000
DAY = 86_400_000_000_000
_ANY_TIME = -(2**63), 2**63 - 1

# A partition of no more events than this is made anew when blocks come, which takes some hundredths of a second; one of
# more only when as many came. So an event is decoded a few times in all, and few partitions are small.
SMALL_GROUP_OBJECTS = 64 * 1024


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks of one partition, in order of insert time, with the insert range that only they lie in. `carried_in` is
    what the partition is built with where rows reach over partitions."""

    blocks: Sequence[BlockRow]
    insert_range: InsertRange
    blocks_hash: bytes
    carried_in: CarriedIn | None = None

    @property
    def source_hash(self) -> bytes:
        """The source hash of the group's partition."""
        return self.blocks_hash + (b"" if self.carried_in is None else self.carried_in.source_suffix)

    @property
    def event_bounds(self) -> tuple[int, int]:
        """Earliest and latest event time (ns) that the blocks may hold."""
        return event_bounds(self.blocks)


def event_bounds(blocks: Iterable[BlockRow]) -> tuple[int, int]:
    """Earliest and latest event time (ns) that at least one block may hold."""
    lowest, highest = _ANY_TIME[1], _ANY_TIME[0]
    for block in blocks:
        if block.min_event_time is None or block.max_event_time is None:
            return _ANY_TIME
        lowest, highest = min(lowest, block.min_event_time), max(highest, block.max_event_time)
    return lowest - STAMP_MARGIN, highest + STAMP_MARGIN


@dataclass(frozen=True, slots=True)
class _Moment:
    """The blocks of one insert time: a range can't part them."""

    blocks: Sequence[BlockRow]
    may_begin_group: bool

    @property
    def time(self) -> int:
        return self.blocks[0].insert_time

    @property
    def objects(self) -> int:
        return sum(block.nb_objects for block in self.blocks)


def block_groups(
    blocks: Iterable[BlockRow],
    partitions: Iterable[Partition] = (),
    *,
    in_order: bool = False,
    max_objects: int = MAX_GROUP_OBJECTS,
    small_objects: int = SMALL_GROUP_OBJECTS,
    bucket: int = DAY,
) -> list[BlockGroup]:
    """Cuts blocks in insert order into groups.

    The blocks of each of `partitions` that holds exactly what it should stay a group. What is left is cut into groups
    of at most `max_objects` events, and at multiples of `bucket` (ns): with midnights UTC, partitions can be retired by
    days. What came last takes in the group before it while that is small, or not larger than itself.

    With `in_order` there is no cut behind which a stream has a block that lies (in ticks) before one in front of it: a
    late block joins all groups that it reaches over.
    """
    moments = _moments(blocks, in_order)
    groups: list[list[_Moment]] = []
    fresh: list[_Moment] = []
    place = 0
    spans = _partition_spans(moments, partitions)
    while place < len(moments):
        end = spans.get(place)
        if end is None:
            fresh.append(moments[place])
            place += 1
            continue
        groups += _cut(fresh, max_objects, bucket)
        fresh = []
        groups.append(moments[place:end])
        place = end
    if fresh:
        objects = _objects(fresh)
        while groups and _day(groups[-1], bucket) == _day(fresh, bucket):
            before = _objects(groups[-1])
            if not takes_in(objects, before, max_objects, small_objects):
                break
            fresh = groups.pop() + fresh
            objects += before
        groups += _cut(fresh, max_objects, bucket)
    return [_group([block for moment in group for block in moment.blocks]) for group in groups]


def takes_in(
    objects: int, before: int, max_objects: int = MAX_GROUP_OBJECTS, small_objects: int = SMALL_GROUP_OBJECTS
) -> bool:
    """Whether the newest blocks, of so many events, join the group of `before` events in front of them, of the same
    day."""
    return before + objects <= max_objects and before <= max(small_objects, objects)


def _moments(blocks: Iterable[BlockRow], in_order: bool) -> list[_Moment]:
    parts = [list(part) for _, part in groupby(blocks, lambda block: block.insert_time)]
    joined = _joined(parts) if in_order else [False] * len(parts)
    return [_Moment(part, not is_joined) for part, is_joined in zip(parts, joined, strict=True)]


def _joined(parts: Sequence[Sequence[BlockRow]]) -> list[bool]:
    """Per part, whether it must stay together with the part in front of it."""
    by_stream: dict[str, list[tuple[int, TickOrder]]] = {}
    for number, part in enumerate(parts):
        for block in part:
            by_stream.setdefault(block.stream_id, []).append((number, in_tick_order(block)))
    changes = [0] * (len(parts) + 1)
    for places in by_stream.values():
        latest = list(accumulate((key for _, key in places), max))
        earliest = list(accumulate((key for _, key in reversed(places)), min))[::-1]
        for position in range(1, len(places)):
            if latest[position - 1] > earliest[position]:
                changes[places[position - 1][0] + 1] += 1
                changes[places[position][0] + 1] -= 1
    return [depth > 0 for depth in accumulate(changes[:-1])]


def _partition_spans(moments: Sequence[_Moment], partitions: Iterable[Partition]) -> dict[int, int]:
    """Of the partitions that hold exactly the blocks of their range: where (index of moment) they begin and end."""
    times = [moment.time for moment in moments]
    spans: dict[int, int] = {}
    for partition in partitions:
        first, behind = partition.begin_insert_time, partition.end_insert_time
        begin, end = bisect_left(times, first), bisect_left(times, behind)
        if begin == end or (first, behind) != (times[begin], times[end - 1] + 1):
            continue
        if not moments[begin].may_begin_group or (end < len(moments) and not moments[end].may_begin_group):
            continue
        held = source_hash(block for moment in moments[begin:end] for block in moment.blocks)
        if partition.source_hash.startswith(held):
            spans[begin] = end
    return spans


def _cut(moments: Sequence[_Moment], max_objects: int, bucket: int) -> Iterator[list[_Moment]]:
    current: list[_Moment] = []
    objects = 0
    for piece in _pieces(moments):
        added = _objects(piece)
        if current and (objects + added > max_objects or _day(piece, bucket) != _day(current, bucket)):
            yield current
            current, objects = [], 0
        current = current + piece
        objects += added
    if current:
        yield current


def _pieces(moments: Sequence[_Moment]) -> Iterator[list[_Moment]]:
    """What no cut may part."""
    piece: list[_Moment] = []
    for moment in moments:
        if piece and moment.may_begin_group:
            yield piece
            piece = []
        piece.append(moment)
    if piece:
        yield piece


def _objects(moments: Sequence[_Moment]) -> int:
    return sum(moment.objects for moment in moments)


def _day(moments: Sequence[_Moment], bucket: int) -> int:
    return moments[0].time // bucket


def _group(blocks: Sequence[BlockRow]) -> BlockGroup:
    return BlockGroup(
        tuple(blocks), InsertRange(blocks[0].insert_time, blocks[-1].insert_time + 1), source_hash(blocks)
    )
