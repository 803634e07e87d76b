"""Whether what partitions were made of is still all there: derived rows may outlive the blocks.

Whoever makes a partition again must look here first, or rows would be lost for good.
"""

from __future__ import annotations

from collections.abc import Iterable

from micromegas.lake import BlockConditions, Lake, Partition
from micromegas.views.block_decoding import blocks_of
from micromegas.views.partition_writer import source_count
from micromegas.views.view_set import ViewSet


def source_of(view_set: ViewSet, partition: Partition) -> BlockConditions:
    """Which blocks a partition is made of."""
    source = blocks_of(view_set, partition.instance_id)
    return source | {"insert_begin": partition.begin_insert_time, "insert_end": partition.end_insert_time}


def lost_blocks(lake: Lake, view_set: ViewSet, partitions: Iterable[Partition]) -> int:
    """How many of the blocks that partitions were made of are gone.

    Insert time is the order of commits, so no range that was covered ever gets another block: a number tells it.
    """
    return sum(
        source_count(partition.source_hash) - lake.metadata.count_blocks(**source_of(view_set, partition))
        for partition in partitions
    )
