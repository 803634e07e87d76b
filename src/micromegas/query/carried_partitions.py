"""Which partitions of a view are good whose rows reach over partitions: each goes on from the one before it.

Must never take a partition that was built on another state than that of the partition in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from micromegas.lake import Metadata, Partition
from micromegas.views.block_groups import BlockGroup
from micromegas.views.carried import NOTHING_LATER, CarriedIn, CarriedSummary, state_digest


class StateGone(Exception):
    """A partition was replaced before its state was read: look again."""


def carried_groups(
    metadata: Metadata, groups: Sequence[BlockGroup], known: Mapping[tuple[int, int], Partition]
) -> tuple[list[Partition], list[BlockGroup]]:
    """The partitions of the groups up to the first that lacks one, and what is to be built next: that group, or when
    none lacks, those that don't know yet what came later. `known` are partitions by insert range. Raises `StateGone`.
    """
    found: list[Partition] = []
    digest = state_digest(None)
    for group in groups:
        partition = known.get((group.insert_range.begin, group.insert_range.end))
        # What came before the first group was removed by retention, and its state with it, but not from this partition.
        goes_on = partition is not None and (
            partition.source_hash.startswith(group.blocks_hash + digest)
            or (not found and partition.source_hash.startswith(group.blocks_hash))
        )
        if partition is None or partition.carries is None or not goes_on:
            return found, [_with_state(metadata, group, found[-1] if found else None)]
        found.append(partition)
        digest = CarriedSummary.from_bytes(partition.carries).digest
    stale: list[BlockGroup] = []
    later = NOTHING_LATER
    for place in reversed(range(len(found))):
        partition, group = found[place], groups[place]
        before = found[place - 1] if place else None
        suffix_begin = len(group.blocks_hash)
        was_first = partition.source_hash[suffix_begin:].startswith(state_digest(None))
        if not partition.source_hash.endswith(later.to_bytes()) and (before is not None or was_first):
            built_on = _with_state(metadata, group, before)
            stale.append(replace(built_on, carried_in=replace(_carried_in(built_on), later=later)))
        if partition.carries is not None:
            later = CarriedSummary.from_bytes(partition.carries).before(later)
    return found, stale


def state_behind(metadata: Metadata, partition: Partition) -> bytes:
    """What a partition hands on; raises `StateGone`."""
    state = metadata.carried_state(partition.partition_id)
    if state is None:
        raise StateGone(partition.partition_id)
    return state


def _with_state(metadata: Metadata, group: BlockGroup, before: Partition | None) -> BlockGroup:
    state = None if before is None else state_behind(metadata, before)
    return replace(group, carried_in=CarriedIn(state))


def _carried_in(group: BlockGroup) -> CarriedIn:
    if group.carried_in is None:
        raise ValueError("the group goes on from nothing")
    return group.carried_in
