"""Ordered buckets of a view defined by SQL. It must never count a source row in two partitions."""

from __future__ import annotations

from collections.abc import Sequence

from micromegas.daemon.insert_clock import MINUTE, SECOND, Clock
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.ordered_buckets import KeepGoing, OrderedBuckets, OrderRefused, shown_file
from micromegas.daemon.reduced_partitions import ReducedPartitions
from micromegas.lake import Lake, Partition
from micromegas.query import Reductions, ReductionStopped
from micromegas.views.partition_writer import InsertRange
from micromegas.views.view_set import ViewSet


class ReducedBuckets(OrderedBuckets):
    """Buckets of whole minutes, at most as long as the view's definition lets a partition be."""

    def __init__(self, lake: Lake, view_set: ViewSet, reductions: Reductions, clock: Clock) -> None:
        super().__init__(lake, view_set, clock)
        self._partitions = ReducedPartitions(lake, view_set, reductions, clock)
        definition = self._partitions.definition
        self._longest = next(tier.length for tier in TIERS if tier.name == definition.largest)

    def check_lengths(self, buckets: Sequence[InsertRange]) -> None:
        for bucket in buckets:
            if bucket.begin % MINUTE or bucket.end % MINUTE:
                raise OrderRefused(f"{self.view_set.name} is kept in whole minutes: begin and end them there")
            if bucket.end - bucket.begin > self._longest:
                raise OrderRefused(
                    f"a partition of {self.view_set.name} lasts at most {self._longest // SECOND} s: "
                    "choose shorter buckets"
                )

    def _materialize(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        older = [each for each in present if each.schema_hash != self.view_set.schema_hash]
        if lost := self._lost_blocks(older):
            return (
                f"left as it is: {lost} blocks that rows of an earlier definition were made of are gone; retire its "
                "partitions first to have what is there counted"
            )
        try:
            made = self._partitions.join(bucket, keep_going)
        except ReductionStopped:
            return "stopped"
        if made is None:
            return "up to date"
        return f"{made.num_rows} rows, {shown_file(made)}, instead of {len(present)} partitions"

    def _regenerate(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        try:
            made = self._partitions.make_again(bucket, keep_going)
        except ReductionStopped:
            return "stopped"
        if made is None:
            return "nothing there"
        return f"{made.num_rows} rows, {shown_file(made)}, instead of {len(present)} partitions"

    def _lost_blocks(self, partitions: Sequence[Partition]) -> int:
        return sum(self._partitions.lost_blocks(partition) for partition in partitions)
