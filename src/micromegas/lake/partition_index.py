"""The ranges of all partitions of a global view, in memory: choosing among many costs no look at each of their rows.

Must never answer from what it remembers of a partition that was gone when it was asked: each time it reads the number
of the newest change.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from micromegas.lake.errors import PartitionConflict
from micromegas.lake.metadata import Metadata, TailConditions
from micromegas.lake.metadata.partition_changes import ChangedPartitions
from micromegas.lake.metadata.tails import ANY_VERSION
from micromegas.lake.partition import Partition
from micromegas.lake.rows import BlockRow, PartitionBounds

# Partitions that are chosen and replaced before their rows are read: merges are rare, so a few rounds always suffice.
_MAX_ROUNDS = 20
_NEVER = (2**63 - 1, -(2**63))
"""Event range of a partition without rows."""

_MAX_ROWS = 2000
"""Rows of partitions that are remembered."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChosenPartitions:
    """Partitions to be read, the insert ranges [begin, end) that no readable partition covers, in order, and the blocks
    in these that were asked for."""

    partitions: list[Partition]
    gaps: list[tuple[int, int]]
    blocks: list[BlockRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Partitions as of a version, in order of insert time; none overlaps another. Never changed in place."""

    version: int
    begins: Integers
    ends: Integers
    lowest: Integers
    highest: Integers
    hashes: Integers
    """Places in `known_hashes`."""
    known_hashes: tuple[bytes, ...]
    rows: dict[int, Partition]
    """Those that were read by now, by begin. Only added to: each holds until a change is known at its begin, even if it
    was read after that was made."""

    @staticmethod
    def of(version: int, rows: Sequence[PartitionBounds]) -> _Ranges:
        known = {schema_hash: place for place, schema_hash in enumerate(dict.fromkeys(row.schema_hash for row in rows))}
        events = [_event_range(row) for row in rows]
        return _Ranges(
            version,
            _integers(row.begin_insert_time for row in rows),
            _integers(row.end_insert_time for row in rows),
            _integers(lowest for lowest, _ in events),
            _integers(highest for _, highest in events),
            _integers(known[row.schema_hash] for row in rows),
            tuple(known),
            {},
        )

    def changed(self, changes: ChangedPartitions) -> _Ranges:
        """With what there is now in place of what there was."""
        kept = ~np.isin(self.begins, _integers(changes.begins))
        added = _Ranges.of(changes.version, [_range_of(partition) for partition in changes.partitions])
        rows = {begin: row for begin, row in self.rows.copy().items() if begin not in changes.begins}
        rows |= {partition.begin_insert_time: partition for partition in changes.partitions}
        if len(rows) > _MAX_ROWS:
            rows = {}
        known = tuple(dict.fromkeys(self.known_hashes + added.known_hashes))
        places = _integers(known.index(schema_hash) for schema_hash in added.known_hashes)
        merged = np.concatenate([self.begins[kept], added.begins])
        order = np.argsort(merged, kind="stable")

        def both(old: Integers, new: Integers) -> Integers:
            return np.concatenate([old[kept], new])[order]

        return _Ranges(
            changes.version,
            merged[order],
            both(self.ends, added.ends),
            both(self.lowest, added.lowest),
            both(self.highest, added.highest),
            both(self.hashes, places[added.hashes] if len(places) else added.hashes),
            known,
            rows,
        )

    def readable(self, schema_hashes: Collection[bytes]) -> NDArray[np.bool_]:
        places = [place for place, schema_hash in enumerate(self.known_hashes) if schema_hash in schema_hashes]
        return np.isin(self.hashes, places)

    def chosen(
        self,
        readable: NDArray[np.bool_],
        event_begin: int | None,
        event_end: int | None,
        inserted: Sequence[tuple[int, int]],
    ) -> Integers:
        """Places of the readable partitions that have rows and meet the ranges."""
        wanted = readable & (self.lowest <= self.highest)
        if event_begin is not None:
            wanted &= self.highest >= event_begin
        if event_end is not None:
            wanted &= self.lowest <= event_end
        if inserted:
            wanted &= np.logical_or.reduce([(self.begins < end) & (self.ends > begin) for begin, end in inserted])
        return np.flatnonzero(wanted)

    def row(self, place: int) -> PartitionBounds:
        lowest, highest = int(self.lowest[place]), int(self.highest[place])
        is_empty = (lowest, highest) == _NEVER
        return PartitionBounds(
            int(self.begins[place]),
            int(self.ends[place]),
            None if is_empty else lowest,
            None if is_empty else highest,
            self.known_hashes[int(self.hashes[place])],
        )


class PartitionIndex:
    """Partitions of one global view. Thread-safe; brought up to date by each look, which costs what has changed."""

    def __init__(self, metadata: Metadata, view_set: str, instance_id: str) -> None:
        self._metadata = metadata
        self._view_set = view_set
        self._instance_id = instance_id
        self._ranges: _Ranges | None = None
        self._guard = threading.Lock()

    def choose(
        self,
        schema_hashes: Collection[bytes],
        *,
        event_begin: int | None,
        event_end: int | None,
        insert_end: int,
        max_partitions: int,
        inserted: Sequence[tuple[int, int]] = (),
        uncovered: TailConditions | None = None,
    ) -> ChosenPartitions:
        """Partitions of these schema hashes whose inclusive event range meets this inclusive range (ns, None = open),
        what partitions of these hashes leave uncovered of the insert times before `insert_end`, and the blocks in there
        that meet `uncovered`. Everything acknowledged before the call is in one of them.

        `inserted`: half-open ranges of insert time, in order, that are asked for; without any, all times are.

        Raises `TooManyPartitions`, and `PartitionConflict` when they change faster than they can be read.
        """
        ranges = self._ranges or self._refreshed()
        begun: int | None = None
        for _ in range(_MAX_ROUNDS):
            readable = ranges.readable(schema_hashes)
            gaps = _gaps(ranges.begins[readable], ranges.ends[readable], insert_end)
            if inserted:
                gaps = _within(gaps, inserted)
            # As a rule nothing has changed, and the blocks come with that news. Otherwise they are those of other gaps.
            until = ranges.version if begun is None else ANY_VERSION
            tail = self._metadata.tail(self._view_set, gaps, uncovered, from_version=ranges.version, to_version=until)
            begun = tail.version if begun is None else begun
            if ranges.version < begun or tail.version < ranges.version:
                ranges = self._refreshed(ranges, went_back=tail.version < ranges.version)
                continue
            places = ranges.chosen(readable, event_begin, event_end, inserted)
            if len(places) > max_partitions:
                raise TooManyPartitions(len(places))
            partitions = self._rows(ranges, places)
            if partitions is not None:
                return ChosenPartitions(partitions, gaps, tail.blocks)
            ranges = self._refreshed(ranges)
        raise PartitionConflict(f"partitions of {self._view_set} keep changing")

    def _rows(self, ranges: _Ranges, places: Integers) -> list[Partition] | None:
        """The rows of partitions; None when some of them are not there any more."""
        begins: list[int] = ranges.begins[places].tolist()
        unknown = [(begin, int(place)) for begin, place in zip(begins, places, strict=True) if begin not in ranges.rows]
        if not unknown:
            return [ranges.rows[begin] for begin in begins]
        read = self._metadata.partitions_beginning_at(
            self._view_set, self._instance_id, [begin for begin, _ in unknown]
        )
        fresh = {partition.begin_insert_time: partition for partition in read}
        for begin, place in unknown:
            if begin not in fresh or _range_of(fresh[begin]) != ranges.row(place):
                return None
        if len(ranges.rows) + len(fresh) <= _MAX_ROWS:
            ranges.rows.update(fresh)
        return [fresh[begin] if begin in fresh else ranges.rows[begin] for begin in begins]

    def _refreshed(self, stale: _Ranges | None = None, *, went_back: bool = False) -> _Ranges:
        """The newest ranges, unless another query read them since the stale ones were taken."""
        with self._guard:
            ranges = self._ranges
            if ranges is stale or ranges is None:
                known = None if went_back else ranges
                changes = None if known is None else self._metadata.changed_partitions(self._view_set, known.version)
                if known is None or changes is None:
                    ranges = _Ranges.of(*self._metadata.partition_ranges(self._view_set))
                else:
                    ranges = known.changed(changes)
                self._ranges = ranges
            return ranges


class TooManyPartitions(Exception):
    """More partitions are in range than the caller takes."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} partitions")
        self.count = count


def _gaps(begins: Integers, ends: Integers, until: int) -> list[tuple[int, int]]:
    starts = np.concatenate([_integers([0]), np.maximum.accumulate(ends)])
    stops = np.minimum(np.concatenate([begins, _integers([until])]), until)
    open_places = np.flatnonzero(starts < stops)
    return [(int(starts[place]), int(stops[place])) for place in open_places]


def _within(gaps: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the gaps lies in the ranges; both are in order."""
    parts = ((max(gap[0], begin), min(gap[1], end)) for begin, end in ranges for gap in gaps)
    return [(begin, end) for begin, end in parts if begin < end]


def _event_range(row: PartitionBounds) -> tuple[int, int]:
    if row.min_event_time is None or row.max_event_time is None:
        return _NEVER
    return row.min_event_time, row.max_event_time


def _range_of(partition: Partition) -> PartitionBounds:
    return PartitionBounds(
        partition.begin_insert_time,
        partition.end_insert_time,
        partition.min_event_time,
        partition.max_event_time,
        partition.schema_hash,
    )


def _integers(values: Iterable[int]) -> Integers:
    return np.fromiter(values, dtype=np.int64)
