"""Merges the partitions of finished minutes, hours and days of a global view into one file each.

It must never commit fewer or more rows than the parts have, nor cover a range that still gets blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from micromegas.daemon.insert_clock import Clock, close_until
from micromegas.daemon.merge_buckets import MergeBucket, Tier, buckets_to_merge
from micromegas.daemon.row_merge import merged_rows
from micromegas.lake import Lake, LakeCorrupt, LakeUnavailable, LeaseClaim, PartitionConflict
from micromegas.query.build_leases import BuildLeases
from micromegas.views.block_decoding import decoded_from
from micromegas.views.partition_writer import FinishedFile, PartitionSlot, RowFile, commit_partition, sum_source_hashes
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The daemon stops, or lost its lease: what was merged so far is thrown away, the parts stay as they are."""


class Merging:
    """One tier of one global view."""

    def __init__(
        self, lake: Lake, view_set: ViewSet, tier: Tier, clock: Clock, leases: BuildLeases | None = None
    ) -> None:
        """With `leases` every bucket is claimed, so that several daemons share the work."""
        self._lake = lake
        self._view_set = view_set
        self._tier = tier
        self._clock = clock
        self._leases = leases

    def merge(self, keep_going: Callable[[], bool]) -> int:
        """Merge all buckets that are due; returns how many failed.

        A failing bucket is logged and tried again by the next call. Raises `LakeUnavailable` when a store doesn't
        answer.
        """
        failures = 0
        partitions = self._lake.metadata.partitions(self._view_set.name, GLOBAL_INSTANCE)
        for bucket in buckets_to_merge(partitions, self._tier, self._view_set.schema_hash, self._clock()):
            if not keep_going():
                break
            try:
                self._merge(bucket, keep_going)
            except Stopped:
                break
            except LakeUnavailable:
                raise
            except PartitionConflict as conflict:
                logger.debug("%s: another daemon was faster: %s", self._view_set.name, conflict)
            except Exception:
                logger.exception(
                    "%s: merging the %s from %d failed",
                    self._view_set.name,
                    self._tier.name,
                    bucket.insert_range.begin,
                )
                failures += 1
        return failures

    def _merge(self, bucket: MergeBucket, keep_going: Callable[[], bool]) -> None:
        if self._leases is None:
            merge_bucket(self._lake, self._view_set, bucket, self._clock, keep_going)
            return
        whole = bucket.insert_range
        claim = self._leases.take(f"{self._view_set.name}/{GLOBAL_INSTANCE}/{self._tier.name}/{whole.begin}")
        if claim is None:
            # Another daemon is at it.
            return
        merged = False
        try:
            # Looked at again under the lease: who held it before may have merged just this.
            present = self._lake.metadata.partitions(
                self._view_set.name, GLOBAL_INSTANCE, insert_begin=whole.begin, insert_end=whole.end
            )
            if {each.partition_id for each in present} == {each.partition_id for each in bucket.parts}:
                merged = merge_bucket(self._lake, self._view_set, bucket, self._clock, keep_going, claim=claim)
        finally:
            self._leases.give_back(claim, used_up=merged)


def merge_bucket(
    lake: Lake,
    view_set: ViewSet,
    bucket: MergeBucket,
    clock: Clock,
    keep_going: Callable[[], bool],
    *,
    claim: LeaseClaim | None = None,
) -> bool:
    """Make one partition of a bucket's; False, and nothing changed, as long as the bucket may still get blocks.

    `claim` is the lease under which it is done, used up by the commit. Raises `Stopped` when it may not go on,
    `PartitionConflict` when the parts have changed.
    """
    if not close_until(lake, bucket.insert_range.end, clock) or _has_uncovered_blocks(lake, view_set, bucket):
        return False
    with lake.scratch.temporary() as folder:
        local = folder / "rows.parquet"
        row_file = RowFile(local, view_set, lasting=bucket.lasts)
        try:
            for rows in merged_rows(lake, view_set, bucket.parts):
                if not keep_going():
                    raise Stopped
                row_file.write(rows)
        finally:
            written = row_file.close()
        expected = sum(part.num_rows for part in bucket.parts)
        if written.num_rows != expected:
            raise LakeCorrupt(f"{len(bucket.parts)} parts gave {written.num_rows} rows where {expected} were written")
        replaces = frozenset(part.partition_id for part in bucket.parts)
        slot = PartitionSlot(view_set, GLOBAL_INSTANCE, bucket.insert_range, replaces, claim)
        source = sum_source_hashes(part.source_hash for part in bucket.parts)
        failed_blocks = sum(part.failed_blocks for part in bucket.parts)
        commit_partition(lake, slot, FinishedFile(local, written, source, failed_blocks))
    return True


def _has_uncovered_blocks(lake: Lake, view_set: ViewSet, bucket: MergeBucket) -> bool:
    tag = decoded_from(view_set).stream_tag
    return any(
        lake.metadata.blocks(tag=tag, insert_begin=gap.begin, insert_end=gap.end, limit=1) for gap in bucket.gaps
    )
