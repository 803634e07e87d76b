"""Ordered buckets of a view that is made of blocks. It must never make rows from only a part of their blocks."""

from __future__ import annotations

from collections.abc import Sequence

from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.merge_buckets import MAX_MERGED_BYTES, MergeBucket
from micromegas.daemon.merging import Stopped, merge_bucket
from micromegas.daemon.ordered_buckets import KeepGoing, OrderedBuckets, OrderRefused, covered, shown, shown_file
from micromegas.daemon.source_blocks import lost_blocks
from micromegas.lake import BlockRow, Partition
from micromegas.views.block_decoding import decoded_from
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE

MAX_BUCKET_BLOCKS = 500_000
"""Of a bucket that is made again, all blocks are listed at once."""


class BlockBuckets(OrderedBuckets):
    """Buckets of whatever length."""

    def check_lengths(self, buckets: Sequence[InsertRange]) -> None:
        pass

    def _materialize(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        view_set = self.view_set
        notes = []
        if lost := self._lost_blocks(present):
            notes.append(f"{lost} blocks that its rows were made of are gone")
        renewed = sum(keep_going() and self._renew(partition) for partition in present)
        if renewed:
            notes.append(f"{renewed} partitions of an older schema made again")
        made = FreshPartitions(self._lake, view_set, self._clock).fill(bucket, keep_going)
        if made:
            notes.append(f"{made} partitions made")
        parts = self._present(bucket)
        if len(parts) > 1 and all(part.schema_hash == view_set.schema_hash for part in parts):
            merged = MergeBucket(bucket, parts)
            if merged.file_bytes > MAX_MERGED_BYTES:
                notes.append(f"{len(parts)} partitions left apart: too large to be one")
            else:
                try:
                    if merge_bucket(self._lake, view_set, merged, self._clock, keep_going):
                        notes.append(f"{len(parts)} partitions merged")
                except Stopped:
                    notes.append("stopped")
        return ", ".join(notes) or "up to date"

    def _renew(self, partition: Partition) -> bool:
        """Make a partition of another schema again, if its blocks are all there."""
        if partition.schema_hash == self.view_set.schema_hash or self._lost_blocks([partition]):
            return False
        insert_range = covered(partition)
        slot = PartitionSlot(self.view_set, GLOBAL_INSTANCE, insert_range, frozenset({partition.partition_id}))
        build_partition(self._lake, slot, self._blocks(insert_range))
        return True

    def _regenerate(self, bucket: InsertRange, present: Sequence[Partition], keep_going: KeepGoing) -> str:
        blocks = self._blocks(bucket)
        if not blocks and not present:
            return "nothing there"
        replaces = frozenset(partition.partition_id for partition in present)
        made = build_partition(self._lake, PartitionSlot(self.view_set, GLOBAL_INSTANCE, bucket, replaces), blocks)
        return f"{made.num_rows} rows of {len(blocks)} blocks, {shown_file(made)}, instead of {len(present)} partitions"

    def _lost_blocks(self, partitions: Sequence[Partition]) -> int:
        return lost_blocks(self._lake, self.view_set, partitions)

    def _blocks(self, insert_range: InsertRange) -> list[BlockRow]:
        blocks = self._lake.metadata.blocks(
            tag=decoded_from(self.view_set).stream_tag,
            insert_begin=insert_range.begin,
            insert_end=insert_range.end,
            limit=MAX_BUCKET_BLOCKS + 1,
        )
        if len(blocks) > MAX_BUCKET_BLOCKS:
            raise OrderRefused(
                f"{shown(insert_range)} holds more than {MAX_BUCKET_BLOCKS} blocks: choose shorter buckets"
            )
        return blocks
