"""Which partitions of a global view are to become one: those of a finished minute, hour or day.

It must never choose a bucket that a partition sticks out of, nor one that still holds partitions of an old schema.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND, floor_to
from micromegas.lake import Partition
from micromegas.views.coverage import uncovered
from micromegas.views.partition_writer import InsertRange

# Beyond this a file gains nothing from being one, and making it needs as much room on the local disk.
MAX_MERGED_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Tier:
    """A length of buckets, and how long (ns) after a bucket's end its merge begins."""

    name: str
    length: int
    settle: int

    def bucket(self, insert_time: int) -> InsertRange:
        """The bucket that holds an insert time."""
        begin = floor_to(insert_time, self.length)
        return InsertRange(begin, begin + self.length)

    def is_due(self, bucket: InsertRange, now: int) -> bool:
        return now >= bucket.end + self.settle


# Each tier leaves the one below the time to be through with the last bucket.
TIERS = (
    Tier("minute", MINUTE, 2 * SECOND),
    Tier("hour", HOUR, 30 * SECOND),
    Tier("day", DAY, 10 * MINUTE),
)


@dataclass(frozen=True, slots=True)
class MergeBucket:
    """A bucket with the partitions (two or more, in order of insert time) that become one."""

    insert_range: InsertRange
    parts: Sequence[Partition]

    @property
    def gaps(self) -> list[InsertRange]:
        """What no part covers; must be free of blocks before the merged partition may cover it."""
        return uncovered(self.parts, self.insert_range.begin, self.insert_range.end)

    @property
    def lasts(self) -> bool:
        """Whether no other merge follows: what comes of it is kept for months."""
        return self.insert_range.end - self.insert_range.begin >= TIERS[-1].length

    @property
    def file_bytes(self) -> int:
        return sum(part.file_size for part in self.parts)


def buckets_to_merge(
    partitions: Iterable[Partition], tier: Tier, schema_hash: bytes, now: int, tiers: Sequence[Tier] = TIERS
) -> list[MergeBucket]:
    """The buckets of a tier that are due, oldest first, out of all partitions of a view instance.

    What a wider one of `tiers` is about to merge anyway is left to it.
    """
    ordered = sorted(partitions, key=lambda each: each.begin_insert_time)
    wider = [each for each in tiers if each.length > tier.length]
    taken = {
        (each.length, bucket.insert_range.begin)
        for each in wider
        for bucket in _buckets(ordered, each, schema_hash)
        if each.is_due(bucket.insert_range, now)
    }
    return [
        bucket
        for bucket in _buckets(ordered, tier, schema_hash)
        if tier.is_due(bucket.insert_range, now)
        and not any((each.length, floor_to(bucket.insert_range.begin, each.length)) in taken for each in wider)
    ]


def _buckets(ordered: Sequence[Partition], tier: Tier, schema_hash: bytes) -> list[MergeBucket]:
    """Buckets of two or more partitions that can be merged, due or not."""
    inside: dict[int, list[Partition]] = defaultdict(list)
    unfit: set[int] = set()
    for partition in ordered:
        first = floor_to(partition.begin_insert_time, tier.length)
        last = floor_to(partition.end_insert_time - 1, tier.length)
        inside[first].append(partition)
        if partition.schema_hash != schema_hash:
            unfit |= {first, last}
        elif first != last:
            # It may reach over many buckets, but no other partition begins inside of those between.
            unfit |= {first, last}
    buckets = [
        MergeBucket(InsertRange(begin, begin + tier.length), parts)
        for begin, parts in inside.items()
        if len(parts) > 1 and begin not in unfit
    ]
    return [bucket for bucket in buckets if bucket.file_bytes <= MAX_MERGED_BYTES]
