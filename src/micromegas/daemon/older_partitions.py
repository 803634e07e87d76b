"""Writes partitions of older schemas anew, those first in which an older decoder failed at blocks.

It must never give up rows: a partition whose blocks are not all there any more stays as it is, and stays readable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from micromegas.daemon.source_blocks import source_of
from micromegas.lake import Lake, LakeUnavailable, Partition, PartitionConflict
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition, source_hash
from micromegas.views.view_set import ViewSet

# A pass is short, so that this never keeps the daemon's threads from what is fresh.
MAX_REWRITES = 2
_MAX_LISTED = 1000

logger = logging.getLogger(__name__)


class OlderPartitions:
    """The partitions of all instances of the view sets that have older schemas."""

    def __init__(self, lake: Lake, view_sets: Iterable[ViewSet]) -> None:
        self._lake = lake
        self._view_sets = [view_set for view_set in view_sets if view_set.older]
        # Their blocks are gone and don't come back. After a restart they are looked at once more.
        self._beyond_rewriting: set[str] = set()

    def rewrite(self, keep_going: Callable[[], bool]) -> int:
        """Write up to `MAX_REWRITES` partitions anew; returns how many failed.

        One that fails is logged and tried again by a later call. Raises `LakeUnavailable` when a store doesn't answer.
        """
        failures = left = 0
        for view_set in self._view_sets:
            older = view_set.readable - {view_set.schema_hash}
            listed = self._lake.metadata.partitions_of_schemas(
                view_set.name, older, _MAX_LISTED + len(self._beyond_rewriting)
            )
            for partition in listed:
                if left == MAX_REWRITES or not keep_going():
                    return failures
                if partition.partition_id in self._beyond_rewriting:
                    continue
                try:
                    left += self._rewrite(view_set, partition)
                except LakeUnavailable:
                    raise
                except PartitionConflict as conflict:
                    logger.debug("%s: somebody else was faster: %s", view_set.name, conflict)
                except Exception:
                    logger.exception("%s: partition %s was not rewritten", view_set.name, partition.partition_id)
                    failures += 1
        return failures

    def _rewrite(self, view_set: ViewSet, partition: Partition) -> bool:
        blocks = self._lake.metadata.blocks(**source_of(view_set, partition))
        if source_hash(blocks) != partition.source_hash:
            logger.info("%s: partition %s outlives its blocks", view_set.name, partition.partition_id)
            self._beyond_rewriting.add(partition.partition_id)
            return False
        slot = PartitionSlot(
            view_set,
            partition.instance_id,
            InsertRange(partition.begin_insert_time, partition.end_insert_time),
            frozenset({partition.partition_id}),
        )
        build_partition(self._lake, slot, blocks)
        return True
