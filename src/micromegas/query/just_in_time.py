"""Partitions of process and stream instances, built when a query needs them and kept for the next one.

Must run outside of the engine's callbacks (between the two planning passes), and never for a mere EXPLAIN.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from micromegas.lake import BlockRow, Lake, Partition, PartitionConflict
from micromegas.query.bounds import TimeRange
from micromegas.query.build_leases import TTL_S, BuildLeases
from micromegas.query.carried_partitions import StateGone, carried_groups, state_behind
from micromegas.query.errors import QueryError
from micromegas.query.outliving_partitions import between, outliving
from micromegas.views.block_decoding import decoded_from
from micromegas.views.block_groups import DAY, EVENT_TIME_MARGIN, BlockGroup, block_groups, event_bounds
from micromegas.views.block_rows import CarryingRows, RowsRequest
from micromegas.views.carried import CarriedIn
from micromegas.views.partition_writer import PartitionSlot, build_partition
from micromegas.views.view_set import InstanceKind, ViewSet

# Conflicts come from blocks that arrive and from leases that run out, so a few rounds always suffice.
_MAX_CONFLICTS = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25

_BuildKey = tuple[str, str, int, int, bytes]


class _BuiltElsewhere(Exception):
    """Another build holds the lease of this name."""

    def __init__(self, lease_name: str) -> None:
        super().__init__(lease_name)
        self.lease_name = lease_name


@dataclass(frozen=True, slots=True)
class InstanceRows:
    """Partitions of a view instance, and the rows of what goes on behind the last of them."""

    partitions: list[Partition]
    unfinished: pa.RecordBatch | None = None


class JustInTime:
    """Finds or builds the partitions of view instances. Thread-safe; `close()` waits for builds in progress.

    Each is built once: queries of this server share a build, and of several servers one holds the partition's lease
    while the others wait for what it commits. When it dies, another goes on after at most `lease_ttl_s`.
    """

    def __init__(self, lake: Lake, max_wait_s: float, lease_ttl_s: float = TTL_S) -> None:
        self._lake = lake
        self._max_wait_s = max_wait_s
        self._builders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="partition-build")
        self._leases = BuildLeases(lake, lease_ttl_s)
        self._builds: dict[_BuildKey, Future[Partition]] = {}
        self._guard = threading.Lock()

    def rows(
        self,
        view_set: ViewSet,
        instance_id: str,
        events: TimeRange,
        *,
        build: bool = True,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> InstanceRows:
        """What holds all rows of the instance with an event time in `events` (and maybe others).

        With `build=False` only partitions that exist and are up to date. Waits for builds at most `max_wait_s` and no
        longer than `is_wanted`; a build that has begun goes on, for the queries that come later.
        """
        patience = _Patience(f"{view_set.name}/{instance_id}", time.monotonic() + self._max_wait_s, is_wanted)
        # What becomes visible from here on is not for this query, so it never runs after a process that goes on.
        begun = self._visible_end()
        visible_end = begun
        conflicts = 0
        while True:
            try:
                found, missing = self._look(view_set, instance_id, events, visible_end)
                if not build:
                    return InstanceRows(found)
                if not missing:
                    return InstanceRows(found, self._unfinished(view_set, instance_id, found))
                built, conflict, elsewhere = self._build(view_set, instance_id, missing, visible_end, patience)
            except StateGone:
                found, built, conflict, elsewhere = [], [], True, []
            if not conflict and not elsewhere:
                if not decoded_from(view_set).carries:
                    return InstanceRows(found + built)
                # The next partition goes on from this one.
                continue
            conflicts += conflict
            if conflicts > _MAX_CONFLICTS:
                raise QueryError("internal", f"partitions of {view_set.name}/{instance_id} keep changing: try again")
            for lease_name in elsewhere:
                self._await_lease(lease_name, patience)
            visible_end = self._end_of_newest(view_set, instance_id, begun)

    def close(self) -> None:
        self._builders.shutdown()

    def _look(
        self, view_set: ViewSet, instance_id: str, events: TimeRange, visible_end: int
    ) -> tuple[list[Partition], list[BlockGroup]]:
        decoded = decoded_from(view_set)
        blocks = self._blocks(view_set, instance_id, events, visible_end)
        present = self._partitions(view_set, instance_id, events, blocks)
        kept = [] if decoded.carries else outliving(view_set, present, blocks, visible_end)
        kept_ids = {partition.partition_id for partition in kept}
        partitions = [each for each in present if each.partition_id not in kept_ids and _is_good(each, view_set)]
        groups = [
            group
            for part in between(blocks, kept)
            for group in block_groups(part, partitions, in_order=decoded.carries and decoded.sorted_by_ticks)
        ]
        known = {_slot_key(partition): partition for partition in partitions}
        if decoded.carries:
            return carried_groups(self._lake.metadata, groups, known)
        found: list[Partition] = kept
        missing: list[BlockGroup] = []
        for group in groups:
            if not events.overlaps(*group.event_bounds):
                continue
            partition = known.get((group.insert_range.begin, group.insert_range.end))
            if partition is None or partition.source_hash != group.source_hash:
                missing.append(group)
            else:
                found.append(partition)
        return found, missing

    def _partitions(
        self, view_set: ViewSet, instance_id: str, events: TimeRange, blocks: Sequence[BlockRow]
    ) -> list[Partition]:
        """The partitions that hold some of the blocks, or lie between them, and those that have rows in range."""
        partitions = partial(self._lake.metadata.partitions, view_set.name, instance_id)
        if events.is_empty:
            return []
        if events.is_open:
            return partitions()
        found = partitions(event_begin=events.begin, event_end=events.end)
        if blocks:
            found += partitions(insert_begin=blocks[0].insert_time, insert_end=blocks[-1].insert_time + 1)
        return list({partition.partition_id: partition for partition in found}.values())

    def _unfinished(
        self, view_set: ViewSet, instance_id: str, partitions: Sequence[Partition]
    ) -> pa.RecordBatch | None:
        """Rows of what goes on behind the last partition."""
        decoded = decoded_from(view_set)
        if not decoded.carries or not partitions:
            return None
        state = state_behind(self._lake.metadata, partitions[-1])
        properties: Mapping[str, str] = {}
        if view_set.instance_kind is InstanceKind.STREAM:
            stream = self._lake.metadata.streams([instance_id]).get(instance_id)
            properties = {} if stream is None else stream.properties
        rows = decoded.new_rows(RowsRequest(instance_id, properties, CarriedIn(state)))
        if not isinstance(rows, CarryingRows):
            raise TypeError(f"the builder of {view_set.name} carries nothing")
        return rows.unfinished()

    def _blocks(self, view_set: ViewSet, instance_id: str, events: TimeRange, end: int) -> Sequence[BlockRow]:
        """All blocks of each day (of insert time) that may hold events in range: groups are cut per day.

        Where rows reach over partitions, all blocks of the instance: a span in range may have begun and ended anywhere.
        """
        metadata = self._lake.metadata
        tag = decoded_from(view_set).stream_tag
        process_id = instance_id if view_set.instance_kind is InstanceKind.PROCESS else None
        stream_id = instance_id if view_set.instance_kind is InstanceKind.STREAM else None
        if events.is_empty:
            return []
        if events.is_open:
            return metadata.blocks(tag=tag, process_id=process_id, stream_id=stream_id, insert_end=end)
        if decoded_from(view_set).carries:
            blocks = metadata.blocks(tag=tag, process_id=process_id, stream_id=stream_id, insert_end=end)
            return blocks if blocks and events.overlaps(*event_bounds(blocks)) else []
        wide = events.widened(EVENT_TIME_MARGIN)
        in_range = metadata.blocks(
            tag=tag,
            process_id=process_id,
            stream_id=stream_id,
            insert_end=end,
            event_begin=wide.begin,
            event_end=wide.end,
        )
        if not in_range:
            return []
        return metadata.blocks(
            tag=tag,
            process_id=process_id,
            stream_id=stream_id,
            insert_begin=in_range[0].insert_time // DAY * DAY,
            insert_end=min(end, (in_range[-1].insert_time // DAY + 1) * DAY),
        )

    def _build(
        self, view_set: ViewSet, instance_id: str, groups: Sequence[BlockGroup], visible_end: int, patience: _Patience
    ) -> tuple[list[Partition], bool, list[str]]:
        """Builds the groups side by side: what was built, whether partitions changed meanwhile, and the leases of
        groups that others are building."""
        builds = [self._shared_build(view_set, instance_id, group, visible_end) for group in groups]
        built: list[Partition] = []
        conflict = False
        elsewhere: list[str] = []
        failure: Exception | None = None
        for build in builds:
            try:
                built.append(patience.result(build))
            except PartitionConflict:
                conflict = True
            except _BuiltElsewhere as other:
                elsewhere.append(other.lease_name)
            except QueryError:
                raise
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return built, conflict, elsewhere

    def _shared_build(
        self, view_set: ViewSet, instance_id: str, group: BlockGroup, visible_end: int
    ) -> Future[Partition]:
        """The build of this very group that is under way, or a new one."""
        insert_range = group.insert_range
        key = (view_set.name, instance_id, insert_range.begin, insert_range.end, group.source_hash)
        with self._guard:
            if (under_way := self._builds.get(key)) is not None:
                return under_way
            build = self._builders.submit(self._build_under_lease, view_set, instance_id, group, visible_end)
            self._builds[key] = build
        build.add_done_callback(partial(self._forget_build, key))
        return build

    def _forget_build(self, key: _BuildKey, _build: Future[Partition]) -> None:
        with self._guard:
            del self._builds[key]

    def _build_under_lease(self, view_set: ViewSet, instance_id: str, group: BlockGroup, visible_end: int) -> Partition:
        # A group that grows keeps its begin.
        name = f"{view_set.name}/{instance_id}/{group.insert_range.begin}"
        claim = self._leases.take(name)
        if claim is None:
            raise _BuiltElsewhere(name)
        used_up = False
        try:
            # Looked at again under the lease: who held it before may have built just this.
            present, replaces = self._overlapping(view_set, instance_id, group, visible_end)
            if present is not None:
                return present
            slot = PartitionSlot(view_set, instance_id, group.insert_range, replaces, claim)
            partition = build_partition(self._lake, slot, group.blocks, group.carried_in)
            used_up = True
            return partition
        finally:
            self._leases.give_back(claim, used_up=used_up)

    def _overlapping(
        self, view_set: ViewSet, instance_id: str, group: BlockGroup, visible_end: int
    ) -> tuple[Partition | None, frozenset[str]]:
        """The partition of exactly this group when it is there, and else the ids of those that it is to replace."""
        overlapping = self._lake.metadata.partitions(
            view_set.name,
            instance_id,
            insert_begin=group.insert_range.begin,
            insert_end=group.insert_range.end,
        )
        for partition in overlapping:
            if _holds(partition, view_set, group):
                return partition, frozenset()
            if partition.end_insert_time > visible_end and _is_good(partition, view_set):
                raise PartitionConflict(f"partition {partition.partition_id} holds newer blocks than were listed")
        return None, frozenset(partition.partition_id for partition in overlapping)

    def _await_lease(self, name: str, patience: _Patience) -> None:
        """Returns when the lease is free: its holder is through, or died and the lease ran out."""
        pause_s = _FIRST_PAUSE_S
        while self._leases.is_taken(name):
            patience.check()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _visible_end(self) -> int:
        """Insert time (ns) from which on blocks become visible only now."""
        return self._lake.metadata.watermark() + 1

    def _end_of_newest(self, view_set: ViewSet, instance_id: str, begun: int) -> int:
        """Where the blocks of a query that began at `begun` end, such that partitions which others built since from
        newer blocks are good for it."""
        newer = self._lake.metadata.partitions(view_set.name, instance_id, insert_begin=begun)
        ends = [each.end_insert_time for each in newer if _is_good(each, view_set)]
        return max(begun, *ends) if ends else begun


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long a query waits for builds."""

    what: str
    deadline: float
    is_wanted: Callable[[], bool]

    def check(self) -> None:
        """Raises `QueryError` when it is at an end."""
        if not self.is_wanted():
            raise QueryError("exhausted", f"nobody waits for partitions of {self.what} any more")
        if time.monotonic() >= self.deadline:
            raise QueryError("exhausted", f"partitions of {self.what} are still being built: try again")

    def result(self, build: Future[Partition]) -> Partition:
        while not wait([build], _LONGEST_PAUSE_S).done:
            self.check()
        return build.result()


def _slot_key(partition: Partition) -> tuple[int, int]:
    return partition.begin_insert_time, partition.end_insert_time


def _holds(partition: Partition, view_set: ViewSet, group: BlockGroup) -> bool:
    """Whether a partition is made of exactly the blocks of a group."""
    return (
        _is_good(partition, view_set)
        and partition.source_hash == group.source_hash
        and (partition.begin_insert_time, partition.end_insert_time)
        == (group.insert_range.begin, group.insert_range.end)
    )


def _is_good(partition: Partition, view_set: ViewSet) -> bool:
    """Whether a partition needs not be built again for its schema, nor for blocks that an older decoder failed at."""
    if partition.schema_hash == view_set.schema_hash:
        return True
    return partition.schema_hash in view_set.readable and not partition.failed_blocks
