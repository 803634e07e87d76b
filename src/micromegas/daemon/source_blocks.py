"""Whether what partitions were made of is still all there: derived rows may outlive the blocks.

Whoever makes a partition again must look here first, or rows would be lost for good.
"""

from __future__ import annotations

from collections.abc import Iterable

from micromegas.lake import Lake, Partition
from micromegas.views.block_decoding import decoded_from
from micromegas.views.partition_writer import source_count
from micromegas.views.view_set import ViewSet


def lost_blocks(lake: Lake, view_set: ViewSet, partitions: Iterable[Partition]) -> int:
    """How many of the blocks that partitions of a global view were made of are gone.

    Insert time is the order of commits, so no range that was covered ever gets another block: a number tells it.
    """
    tag = decoded_from(view_set).stream_tag
    return sum(
        source_count(partition.source_hash)
        - lake.metadata.count_blocks(
            tag=tag, insert_begin=partition.begin_insert_time, insert_end=partition.end_insert_time
        )
        for partition in partitions
    )
