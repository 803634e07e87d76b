"""The ranges of all partitions of a global view, in memory: choosing among many costs no look at each of their rows.

Must never answer from what it remembers of a partition that is gone: the rows of the chosen ones are read each time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micromegas.lake.errors import PartitionConflict
from micromegas.lake.metadata import Metadata
from micromegas.lake.partition import Partition
from micromegas.lake.rows import PartitionBounds

# Partitions that are chosen and replaced before their rows are read: merges are rare, so a few rounds always suffice.
_MAX_ROUNDS = 20
_NEVER = (2**63 - 1, -(2**63))
"""Event range of a partition without rows."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChosenPartitions:
    """Partitions to be read, and the insert ranges [begin, end) that no readable partition covers, in order."""

    partitions: list[Partition]
    gaps: list[tuple[int, int]]


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
        )

    def changed(self, version: int, begins: set[int], rows: Sequence[PartitionBounds]) -> _Ranges:
        """With what there is now (`rows`) at the insert times `begins` in place of what there was."""
        kept = ~np.isin(self.begins, _integers(begins))
        added = _Ranges.of(version, rows)
        known = tuple(dict.fromkeys(self.known_hashes + added.known_hashes))
        places = _integers(known.index(schema_hash) for schema_hash in added.known_hashes)
        merged = np.concatenate([self.begins[kept], added.begins])
        order = np.argsort(merged, kind="stable")

        def both(old: Integers, new: Integers) -> Integers:
            return np.concatenate([old[kept], new])[order]

        return _Ranges(
            version,
            merged[order],
            both(self.ends, added.ends),
            both(self.lowest, added.lowest),
            both(self.highest, added.highest),
            both(self.hashes, places[added.hashes] if len(places) else added.hashes),
            known,
        )

    def readable(self, schema_hashes: Collection[bytes]) -> NDArray[np.bool_]:
        places = [place for place, schema_hash in enumerate(self.known_hashes) if schema_hash in schema_hashes]
        return np.isin(self.hashes, places)

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
    ) -> ChosenPartitions:
        """Partitions of these schema hashes whose inclusive event range meets this inclusive range (ns, None = open),
        and what partitions of these hashes leave uncovered of the insert times before `insert_end`.

        `inserted`: half-open ranges of insert time, in order, that are asked for; without any, all times are.

        Raises `TooManyPartitions`, and `PartitionConflict` when they change faster than they can be read.
        """
        for _ in range(_MAX_ROUNDS):
            ranges = self._refreshed()
            readable = ranges.readable(schema_hashes)
            wanted = readable & (ranges.lowest <= ranges.highest)
            if event_begin is not None:
                wanted &= ranges.highest >= event_begin
            if event_end is not None:
                wanted &= ranges.lowest <= event_end
            if inserted:
                wanted &= np.logical_or.reduce(
                    [(ranges.begins < end) & (ranges.ends > begin) for begin, end in inserted]
                )
            places = np.flatnonzero(wanted)
            if len(places) > max_partitions:
                raise TooManyPartitions(len(places))
            expected = [ranges.row(int(place)) for place in places]
            begins = [row.begin_insert_time for row in expected]
            partitions = self._metadata.partitions_beginning_at(self._view_set, self._instance_id, begins)
            if [_range_of(partition) for partition in partitions] == expected:
                gaps = _gaps(ranges.begins[readable], ranges.ends[readable], insert_end)
                return ChosenPartitions(partitions, _within(gaps, inserted) if inserted else gaps)
        raise PartitionConflict(f"partitions of {self._view_set} keep changing")

    def _refreshed(self) -> _Ranges:
        with self._guard:
            version = self._metadata.partition_version(self._view_set)
            ranges = self._ranges
            if ranges is None or version < ranges.version:
                ranges = self._all(version)
            elif version > ranges.version:
                begins = self._metadata.changed_partitions(self._view_set, ranges.version, version)
                if begins is None:
                    ranges = self._all(version)
                else:
                    rows = self._metadata.partition_ranges(self._view_set, begins)
                    ranges = ranges.changed(version, begins, rows)
            self._ranges = ranges
            return ranges

    def _all(self, version: int) -> _Ranges:
        return _Ranges.of(version, self._metadata.partition_ranges(self._view_set))


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
