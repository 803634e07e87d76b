"""Blocks that came before anything told the frequency of their process: once it is known, their rows are made.

It must never give up rows: a partition whose blocks are not all there any more stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from micromegas.daemon.insert_clock import MINUTE, Clock
from micromegas.daemon.source_blocks import lost_blocks, source_of
from micromegas.lake import ClocklessBlock, Lake, LakeUnavailable, Partition, PartitionConflict
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# A pass is short, so that this never keeps the daemon's threads from what is fresh.
MAX_REMADE = 4
_MAX_LISTED = 1000
# A build notes what failed before it commits, and may have begun when the clock was not known.
_COMMIT_TIME = MINUTE

logger = logging.getLogger(__name__)


class ClocklessBlocks:
    """The blocks of all view sets that failed for want of a clock."""

    def __init__(self, lake: Lake, view_sets: Mapping[str, ViewSet], clock: Clock) -> None:
        self._lake = lake
        self._view_sets = view_sets
        self._clock = clock
        # They have the rows, though other blocks of theirs failed.
        self._remade: set[str] = set()

    def retry(self, keep_going: Callable[[], bool]) -> int:
        """Have up to `MAX_REMADE` partitions made anew that lack rows of blocks whose clock is known by now.

        Returns how many failed. Raises `LakeUnavailable` when a store doesn't answer.
        """
        failures = remade = 0
        for block in self._lake.metadata.clockless_blocks(self._clock() - _COMMIT_TIME, _MAX_LISTED):
            settled = True
            for partition in self._lacking(block):
                if remade == MAX_REMADE or not keep_going():
                    return failures
                try:
                    remade += self._remake(self._view_sets[block.view_set], partition)
                except LakeUnavailable:
                    raise
                except PartitionConflict as conflict:
                    logger.debug("%s: somebody else was faster: %s", block.view_set, conflict)
                    settled = False
                except Exception:
                    logger.exception("%s: partition %s was not made anew", block.view_set, partition.partition_id)
                    failures += 1
                    settled = False
            if settled:
                self._lake.metadata.forget_clockless(block)
        return failures

    def _lacking(self, block: ClocklessBlock) -> list[Partition]:
        """The partitions that may lack the rows of a block."""
        if block.view_set not in self._view_sets:
            return []
        return [
            partition
            for instance_id in (GLOBAL_INSTANCE, block.process_id, block.stream_id)
            for partition in self._lake.metadata.partitions(
                block.view_set, instance_id, insert_begin=block.insert_time, insert_end=block.insert_time + 1
            )
            if partition.failed_blocks and partition.partition_id not in self._remade
        ]

    def _remake(self, view_set: ViewSet, partition: Partition) -> bool:
        if lost_blocks(self._lake, view_set, [partition]):
            logger.info("%s: partition %s outlives its blocks", view_set.name, partition.partition_id)
            return False
        replaced = frozenset({partition.partition_id})
        if partition.instance_id == GLOBAL_INSTANCE:
            insert_range = InsertRange(partition.begin_insert_time, partition.end_insert_time)
            slot = PartitionSlot(view_set, GLOBAL_INSTANCE, insert_range, replaced)
            built = build_partition(self._lake, slot, self._lake.metadata.blocks(**source_of(view_set, partition)))
            self._remade.add(built.partition_id)
        else:
            # Those of an instance are made when somebody asks, and what goes on from them with them.
            self._lake.metadata.replace_partitions(view_set.name, partition.instance_id, replaced, None)
        return True
