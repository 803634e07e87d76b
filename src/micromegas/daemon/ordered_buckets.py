"""Buckets of insert time of a global view that administrators order to be made; how they are made is the view's.

No partition may be cut or touched that reaches beyond its bucket, nor one of a bucket that isn't over yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from micromegas.daemon.insert_clock import Clock, close_until
from micromegas.lake import Lake, Partition
from micromegas.views.partition_writer import InsertRange
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet
from micromegas.wire import rfc3339_text

KeepGoing = Callable[[], bool]


class OrderRefused(Exception):
    """An order that can't be carried out as it was given; the text says why and what to do."""


class OrderedBuckets(ABC):
    """The buckets of one view. What they do says in words what was done; they raise `OrderRefused`, `QueryError`,
    `LakeError`, or `PartitionConflict` when a daemon has got on with the same range."""

    def __init__(self, lake: Lake, view_set: ViewSet, clock: Clock) -> None:
        self.view_set = view_set
        self._lake = lake
        self._clock = clock

    @abstractmethod
    def check_lengths(self, buckets: Sequence[InsertRange]) -> None:
        """Raises `OrderRefused` when the view's partitions can't be cut like this."""

    def materialize(self, bucket: InsertRange, keep_going: KeepGoing) -> str:
        """See to it that a bucket is one partition that holds what it must."""
        if not close_until(self._lake, bucket.end, self._clock):
            return "not over yet"
        present = self._present(bucket)
        for partition in present:
            if _reaches_beyond(partition, bucket):
                return f"left as it is: partition {shown(covered(partition))} reaches beyond it"
        return self._materialize(bucket, present, keep_going)

    def check_regenerable(self, bucket: InsertRange) -> None:
        """Raises `OrderRefused` when a bucket can't be made again, or rows would be lost by that."""
        if not close_until(self._lake, bucket.end, self._clock):
            raise OrderRefused(f"{shown(bucket)} is not over yet")
        present = self._present(bucket)
        for partition in present:
            if _reaches_beyond(partition, bucket):
                raise OrderRefused(
                    f"partition {shown(covered(partition))} does not fit into {shown(bucket)}: choose longer buckets"
                )
        if lost := self._lost_blocks(present):
            raise OrderRefused(
                f"{lost} blocks that rows in {shown(bucket)} were made of are gone: these rows would be lost"
            )

    def regenerate(self, bucket: InsertRange, keep_going: KeepGoing) -> str:
        """Make a bucket again, whatever is there."""
        self.check_regenerable(bucket)
        return self._regenerate(bucket, self._present(bucket), keep_going)

    @abstractmethod
    def _materialize(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str: ...

    @abstractmethod
    def _regenerate(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str: ...

    @abstractmethod
    def _lost_blocks(self, partitions: Sequence[Partition]) -> int:
        """How many blocks that partitions were made of are gone."""

    def _present(self, bucket: InsertRange) -> list[Partition]:
        return self._lake.metadata.partitions(
            self.view_set.name, GLOBAL_INSTANCE, insert_begin=bucket.begin, insert_end=bucket.end
        )


def _reaches_beyond(partition: Partition, bucket: InsertRange) -> bool:
    return partition.begin_insert_time < bucket.begin or partition.end_insert_time > bucket.end


def covered(partition: Partition) -> InsertRange:
    """The insert range of a partition."""
    return InsertRange(partition.begin_insert_time, partition.end_insert_time)


def shown_file(partition: Partition) -> str:
    """A partition's file, in words."""
    return "no file" if partition.file_path is None else partition.file_path


def shown(insert_range: InsertRange) -> str:
    """A range in words."""
    return f"[{rfc3339_text(insert_range.begin)}, {rfc3339_text(insert_range.end)})"
