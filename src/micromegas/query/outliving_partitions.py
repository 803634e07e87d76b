"""Partitions of an instance whose blocks are gone, or some of them, as derived rows may be kept for longer.

They must be read as they are, and never be made again from what is left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from micromegas.lake import BlockRow, Partition
from micromegas.views.partition_writer import source_count
from micromegas.views.view_set import ViewSet


def outliving(
    view_set: ViewSet, partitions: Sequence[Partition], blocks: Sequence[BlockRow], visible_end: int
) -> list[Partition]:
    """Those of an instance's partitions that hold more blocks than are listed of their range, by insert time.

    `blocks` are in order of insert time, all that are visible before `visible_end` in the ranges that they lie in. No
    range that was covered ever gets another block, so what a partition holds and what is there differ in number alone.
    """
    times = [block.insert_time for block in blocks]
    return sorted(
        (
            each
            for each in partitions
            if each.end_insert_time <= visible_end
            and each.schema_hash in view_set.readable
            and source_count(each.source_hash)
            > bisect_left(times, each.end_insert_time) - bisect_left(times, each.begin_insert_time)
        ),
        key=lambda each: each.begin_insert_time,
    )


def between(blocks: Sequence[BlockRow], kept: Sequence[Partition]) -> Iterator[Sequence[BlockRow]]:
    """The blocks that are in none of the `kept` partitions, parted where one of these lies, as no other may reach over
    it. Both are in order of insert time."""
    times = [block.insert_time for block in blocks]
    begin = 0
    for partition in kept:
        end = bisect_left(times, partition.begin_insert_time)
        if begin < end:
            yield blocks[begin:end]
        begin = bisect_left(times, partition.end_insert_time)
    if begin < len(blocks):
        yield blocks[begin:]
