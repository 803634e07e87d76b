"""Partitions of process and stream instances, built when a query needs them and kept for the next one.

Must run outside of the engine's callbacks (between the two planning passes), and never for a mere EXPLAIN.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

from micromegas.lake import BlockRow, Lake, Partition, PartitionConflict
from micromegas.query.bounds import TimeRange
from micromegas.query.build_leases import TTL_S, BuildLeases
from micromegas.query.errors import QueryError
from micromegas.views.block_decoding import decoded_from
from micromegas.views.block_groups import DAY, EVENT_TIME_MARGIN, BlockGroup, block_groups
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

    def partitions(
        self,
        view_set: ViewSet,
        instance_id: str,
        events: TimeRange,
        *,
        build: bool = True,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> list[Partition]:
        """Partitions that hold all rows of the instance with an event time in `events` (and maybe others).

        With `build=False` only those that exist and are up to date. Waits for builds at most `max_wait_s` and no longer
        than `is_wanted`; a build that has begun goes on, for the queries that come later.
        """
        patience = _Patience(f"{view_set.name}/{instance_id}", time.monotonic() + self._max_wait_s, is_wanted)
        # What becomes visible from here on is not for this query, so it never runs after a process that goes on.
        begun = self._visible_end()
        visible_end = begun
        conflicts = 0
        while True:
            found, missing = self._look(view_set, instance_id, events, visible_end)
            if not missing or not build:
                return found
            built, conflict, elsewhere = self._build(view_set, instance_id, missing, visible_end, patience)
            if not conflict and not elsewhere:
                return found + built
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
        groups = [
            group
            for group in block_groups(self._blocks(view_set, instance_id, events, visible_end))
            if events.overlaps(*group.event_bounds)
        ]
        if not groups:
            return [], []
        known = {
            (partition.begin_insert_time, partition.end_insert_time, partition.source_hash): partition
            for partition in self._lake.metadata.partitions(
                view_set.name,
                instance_id,
                insert_begin=groups[0].insert_range.begin,
                insert_end=groups[-1].insert_range.end,
            )
            if _is_good(partition, view_set)
        }
        found: list[Partition] = []
        missing: list[BlockGroup] = []
        for group in groups:
            partition = known.get((group.insert_range.begin, group.insert_range.end, group.source_hash))
            if partition is None:
                missing.append(group)
            else:
                found.append(partition)
        return found, missing

    def _blocks(self, view_set: ViewSet, instance_id: str, events: TimeRange, end: int) -> Sequence[BlockRow]:
        """All blocks of each day (of insert time) that may hold events in range: groups are cut per day."""
        metadata = self._lake.metadata
        tag = decoded_from(view_set).stream_tag
        process_id = instance_id if view_set.instance_kind is InstanceKind.PROCESS else None
        stream_id = instance_id if view_set.instance_kind is InstanceKind.STREAM else None
        if events.is_empty:
            return []
        if events.is_open:
            return metadata.blocks(tag=tag, process_id=process_id, stream_id=stream_id, insert_end=end)
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
            partition = build_partition(self._lake, slot, group.blocks)
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
