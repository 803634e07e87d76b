"""Partitions of process and stream instances, built when a query needs them and kept for the next one.

Must run outside of the engine's callbacks (between the two planning passes), and never for a mere EXPLAIN.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from micromegas.lake import BlockRow, Lake, Partition, PartitionConflict
from micromegas.query.bounds import TimeRange
from micromegas.query.errors import QueryError
from micromegas.views.block_decoding import decoded_from
from micromegas.views.block_groups import DAY, EVENT_TIME_MARGIN, BlockGroup, block_groups
from micromegas.views.partition_writer import PartitionSlot, build_partition
from micromegas.views.view_set import InstanceKind, ViewSet

# Another server that builds the same partitions wins at most once per new block, so a few rounds always suffice.
_MAX_ROUNDS = 20


class _InstanceLock:
    """Held by the query that builds partitions of one instance; the others find them finished."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class JustInTime:
    """Finds or builds the partitions of view instances. Thread-safe; `close()` waits for builds in progress."""

    def __init__(self, lake: Lake, max_wait_s: float) -> None:
        self._lake = lake
        self._max_wait_s = max_wait_s
        self._builders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="partition-build")
        self._locks: weakref.WeakValueDictionary[tuple[str, str], _InstanceLock] = weakref.WeakValueDictionary()
        self._locks_guard = threading.Lock()

    def partitions(
        self, view_set: ViewSet, instance_id: str, events: TimeRange, *, build: bool = True
    ) -> list[Partition]:
        """Partitions that hold all rows of the instance with an event time in `events` (and maybe others).

        With `build=False` only those that exist and are up to date. Waits at most `max_wait_s` for a build of another
        query, or all planning threads could end up waiting on behalf of queries that nobody asks for any more.
        """
        found, missing = self._look(view_set, instance_id, events, self._visible_end())
        if not missing or not build:
            return found
        instance_lock = self._lock_of(view_set.name, instance_id)
        if not instance_lock.lock.acquire(timeout=self._max_wait_s):
            raise QueryError(
                "exhausted", f"partitions of {view_set.name}/{instance_id} are still being built: try again"
            )
        try:
            for _ in range(_MAX_ROUNDS):
                visible_end = self._visible_end()
                found, missing = self._look(view_set, instance_id, events, visible_end)
                if not missing:
                    return found
                built = self._build(view_set, instance_id, missing, visible_end)
                if built is not None:
                    return found + built
        finally:
            instance_lock.lock.release()
        raise QueryError("internal", f"partitions of {view_set.name}/{instance_id} keep changing: try again")

    def close(self) -> None:
        self._builders.shutdown()

    def _lock_of(self, view_set: str, instance_id: str) -> _InstanceLock:
        with self._locks_guard:
            return self._locks.setdefault((view_set, instance_id), _InstanceLock())

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
            if partition.schema_hash == view_set.schema_hash
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
        self, view_set: ViewSet, instance_id: str, groups: Sequence[BlockGroup], visible_end: int
    ) -> list[Partition] | None:
        """Builds the groups side by side; None when another server changed the partitions meanwhile."""
        futures: list[Future[Partition]] = [
            self._builders.submit(self._build_one, view_set, instance_id, group, visible_end) for group in groups
        ]
        built: list[Partition] = []
        conflict = False
        failure: BaseException | None = None
        for future in futures:
            try:
                built.append(future.result())
            except PartitionConflict:
                conflict = True
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return None if conflict else built

    def _build_one(self, view_set: ViewSet, instance_id: str, group: BlockGroup, visible_end: int) -> Partition:
        overlapping = self._lake.metadata.partitions(
            view_set.name,
            instance_id,
            insert_begin=group.insert_range.begin,
            insert_end=group.insert_range.end,
        )
        for partition in overlapping:
            if _holds(partition, view_set, group):
                return partition
            if partition.end_insert_time > visible_end and partition.schema_hash == view_set.schema_hash:
                raise PartitionConflict(f"partition {partition.partition_id} holds newer blocks than were listed")
        replaces = frozenset(partition.partition_id for partition in overlapping)
        slot = PartitionSlot(view_set, instance_id, group.insert_range, replaces)
        return build_partition(self._lake, slot, group.blocks)

    def _visible_end(self) -> int:
        """Insert time (ns) from which on blocks become visible only now: they are not for this query."""
        return self._lake.metadata.watermark() + 1


def _holds(partition: Partition, view_set: ViewSet, group: BlockGroup) -> bool:
    """Whether a partition is made of exactly the blocks of a group."""
    return (
        partition.schema_hash == view_set.schema_hash
        and partition.source_hash == group.source_hash
        and (partition.begin_insert_time, partition.end_insert_time)
        == (group.insert_range.begin, group.insert_range.end)
    )
