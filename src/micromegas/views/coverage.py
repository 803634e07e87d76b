"""Which insert times the partitions of a view cover, and which are left."""

from __future__ import annotations

from collections.abc import Iterable

from micromegas.lake import Partition
from micromegas.views.partition_writer import InsertRange


def uncovered(partitions: Iterable[Partition], begin: int, end: int) -> list[InsertRange]:
    """The parts of [begin, end) that no partition covers, in order."""
    gaps: list[InsertRange] = []
    position = begin
    for partition in sorted(partitions, key=lambda each: each.begin_insert_time):
        if partition.begin_insert_time >= end:
            break
        if partition.begin_insert_time > position:
            gaps.append(InsertRange(position, partition.begin_insert_time))
        position = max(position, partition.end_insert_time)
    if position < end:
        gaps.append(InsertRange(position, end))
    return gaps
