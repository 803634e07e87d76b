"""Ordered buckets of a view that is read from the metadata database, and so has no partitions: nothing is ever to be
made. Whoever orders it of all global views, one after the other, is not stopped by one of these."""

from __future__ import annotations

from collections.abc import Sequence

from micromegas.daemon.ordered_buckets import KeepGoing, OrderedBuckets
from micromegas.lake import Partition
from micromegas.views.partition_writer import InsertRange

_ANSWER = "always up to date, as it is read from the metadata database"


class MetadataBuckets(OrderedBuckets):
    """Buckets of any length."""

    def check_lengths(self, buckets: Sequence[InsertRange]) -> None:
        pass

    def _materialize(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        return _ANSWER

    def _regenerate(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        return _ANSWER

    def _lost_blocks(self, partitions: Sequence[Partition]) -> int:
        return 0
