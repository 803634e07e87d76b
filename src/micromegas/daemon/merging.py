"""Merges the partitions of finished minutes, hours and days of a global view into one file each.

It must never commit fewer or more rows than the parts have, nor cover a range that still gets blocks.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from micromegas.daemon.insert_clock import Clock, close_until
from micromegas.daemon.merge_buckets import MergeBucket, Tier, buckets_to_merge
from micromegas.daemon.row_merge import merged_rows
from micromegas.lake import Lake, LakeCorrupt, LakeUnavailable, PartitionConflict
from micromegas.views.block_decoding import decoded_from
from micromegas.views.partition_writer import FinishedFile, PartitionSlot, RowFile, commit_partition, sum_source_hashes
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

logger = logging.getLogger(__name__)


class _Stopped(Exception):
    """The daemon stops, or lost its lease: what was merged so far is thrown away, the parts stay as they are."""


class Merging:
    """One tier of one global view."""

    def __init__(self, lake: Lake, view_set: ViewSet, tier: Tier, clock: Clock) -> None:
        self._lake = lake
        self._view_set = view_set
        self._tier = tier
        self._clock = clock

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
            except _Stopped:
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
        if not close_until(self._lake, bucket.insert_range.end, self._clock) or self._has_uncovered_blocks(bucket):
            return
        with tempfile.TemporaryDirectory(prefix="micromegas-merge-") as folder:
            local = Path(folder) / "rows.parquet"
            row_file = RowFile(local, self._view_set)
            try:
                for rows in merged_rows(self._lake, self._view_set, bucket.parts):
                    if not keep_going():
                        raise _Stopped
                    row_file.write(rows)
            finally:
                written = row_file.close()
            expected = sum(part.num_rows for part in bucket.parts)
            if written.num_rows != expected:
                raise LakeCorrupt(
                    f"{len(bucket.parts)} parts gave {written.num_rows} rows where {expected} were written"
                )
            slot = PartitionSlot(
                self._view_set,
                GLOBAL_INSTANCE,
                bucket.insert_range,
                frozenset(part.partition_id for part in bucket.parts),
            )
            source = sum_source_hashes(part.source_hash for part in bucket.parts)
            failed_blocks = sum(part.failed_blocks for part in bucket.parts)
            commit_partition(self._lake, slot, FinishedFile(local, written, source, failed_blocks))

    def _has_uncovered_blocks(self, bucket: MergeBucket) -> bool:
        tag = decoded_from(self._view_set).stream_tag
        return any(
            self._lake.metadata.blocks(tag=tag, insert_begin=gap.begin, insert_end=gap.end, limit=1)
            for gap in bucket.gaps
        )
