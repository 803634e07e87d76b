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
from typing import TypeVar

import pyarrow as pa

from micromegas.lake import BlockRow, Lake, Partition, PartitionConflict
from micromegas.query.bounds import TimeRange
from micromegas.query.build_leases import TTL_S, BuildLeases
from micromegas.query.carried_partitions import CarriedLook, StateGone
from micromegas.query.errors import QueryError
from micromegas.query.good_partitions import is_good
from micromegas.query.outliving_partitions import between, outliving
from micromegas.views.block_decoding import blocks_of, decoded_from
from micromegas.views.block_groups import DAY, BlockGroup, block_groups
from micromegas.views.block_rows import CarryingRows, RowsRequest
from micromegas.views.carried import CarriedIn
from micromegas.views.partition_writer import PartitionSlot, build_partition
from micromegas.views.view_set import InstanceKind, ViewSet

# Conflicts come from blocks that arrive and from leases that run out, so a few rounds always suffice.
_MAX_CONFLICTS = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25

Result = TypeVar("Result")
NEVER = TimeRange(1, 0)
_BuildKey = tuple[str, str, int, int, bytes, bool]


class _BuiltElsewhere(Exception):
    """Other builds hold the leases of these names; `conflict`: and others again have changed partitions."""

    def __init__(self, leases: Sequence[str], *, conflict: bool = False) -> None:
        super().__init__(*leases)
        self.leases = leases
        self.conflict = conflict


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
        return self._settled(
            view_set,
            instance_id,
            is_wanted=is_wanted,
            look=lambda end, patience: self._rows(view_set, instance_id, events, end, patience, build=build),
        )

    def advance(self, view_set: ViewSet, instance_id: str, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Leaves partitions, without rows where there are none, from which the spans of any time of the instance are
        soon told. For view sets whose rows reach over partitions. Raises `QueryError` when it is not wanted any more.
        """
        self._settled(
            view_set,
            instance_id,
            is_wanted=is_wanted,
            look=lambda end, patience: self._advanced(view_set, instance_id, NEVER, end, patience),
        )

    def close(self) -> None:
        self._builders.shutdown()

    def _settled(
        self,
        view_set: ViewSet,
        instance_id: str,
        *,
        is_wanted: Callable[[], bool],
        look: Callable[[int, _Patience], Result],
    ) -> Result:
        """What `look` says, given where the visible blocks end, once no other builder interferes."""
        patience = _Patience(f"{view_set.name}/{instance_id}", time.monotonic() + self._max_wait_s, is_wanted)
        # What becomes visible from here on is not for this query, so it never runs after a process that goes on.
        begun = self._visible_end()
        visible_end = begun
        conflicts = 0
        while True:
            elsewhere: Sequence[str] = ()
            try:
                return look(visible_end, patience)
            except (PartitionConflict, StateGone):
                conflicts += 1
            except _BuiltElsewhere as other:
                conflicts += other.conflict
                elsewhere = other.leases
            if conflicts > _MAX_CONFLICTS:
                raise QueryError("internal", f"partitions of {view_set.name}/{instance_id} keep changing: try again")
            for lease_name in elsewhere:
                self._await_lease(lease_name, patience)
            visible_end = self._end_of_newest(view_set, instance_id, begun)

    def _rows(
        self,
        view_set: ViewSet,
        instance_id: str,
        events: TimeRange,
        visible_end: int,
        patience: _Patience,
        *,
        build: bool,
    ) -> InstanceRows:
        if events.is_empty:
            return InstanceRows([])
        if not decoded_from(view_set).carries:
            found, missing = self._look(view_set, instance_id, events, visible_end)
            return InstanceRows(
                found + self._build(view_set, instance_id, missing, visible_end, patience) if build else found
            )
        if not build:
            look = self._carried_look(view_set, instance_id, visible_end)
            look.next_group(events)
            return InstanceRows(look.in_range(events))
        look = self._advanced(view_set, instance_id, events, visible_end, patience)
        look.replace(self._build(view_set, instance_id, look.without_rows(events), look.end, patience))
        return InstanceRows(look.in_range(events), self._unfinished(view_set, instance_id, look))

    def _carried_look(self, view_set: ViewSet, instance_id: str, visible_end: int) -> CarriedLook:
        source = blocks_of(view_set, instance_id)
        return CarriedLook(self._lake.metadata, view_set, instance_id, source, visible_end)

    def _advanced(
        self, view_set: ViewSet, instance_id: str, events: TimeRange, visible_end: int, patience: _Patience
    ) -> CarriedLook:
        """A look at an instance whose partitions all hand on their state: each goes on from the one before, so those
        that lack are built one after the other. Rows are made of those that may have some in `events`."""
        look = self._carried_look(view_set, instance_id, visible_end)
        if events.is_empty or look.may_hold(events):
            while (group := look.next_group(events)) is not None:
                patience.check()
                (partition,) = self._build(view_set, instance_id, [group], look.end, patience)
                look.add(partition)
        return look

    def _look(
        self, view_set: ViewSet, instance_id: str, events: TimeRange, visible_end: int
    ) -> tuple[list[Partition], list[BlockGroup]]:
        """The partitions and the groups that lack one of a view whose rows never reach over partitions."""
        blocks = self._blocks(view_set, instance_id, events, visible_end)
        present = self._partitions(view_set, instance_id, events, blocks)
        kept = outliving(view_set, present, blocks, visible_end)
        kept_ids = {partition.partition_id for partition in kept}
        partitions = [each for each in present if each.partition_id not in kept_ids and is_good(each, view_set)]
        groups = [group for part in between(blocks, kept) for group in block_groups(part, partitions)]
        known = {_slot_key(partition): partition for partition in partitions}
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
        if events.is_open:
            return partitions()
        found = partitions(event_begin=events.begin, event_end=events.end)
        if blocks:
            found += partitions(insert_begin=blocks[0].insert_time, insert_end=blocks[-1].insert_time + 1)
        return list({partition.partition_id: partition for partition in found}.values())

    def _unfinished(self, view_set: ViewSet, instance_id: str, look: CarriedLook) -> pa.RecordBatch | None:
        """Rows of what goes on behind the last partition."""
        state = look.state_behind()
        if state is None:
            return None
        properties: Mapping[str, str] = {}
        if view_set.instance_kind is InstanceKind.STREAM:
            stream = self._lake.metadata.streams([instance_id]).get(instance_id)
            properties = {} if stream is None else stream.properties
        rows = decoded_from(view_set).new_rows(RowsRequest(instance_id, properties, CarriedIn(state)))
        if not isinstance(rows, CarryingRows):
            raise TypeError(f"the builder of {view_set.name} carries nothing")
        return rows.unfinished()

    def _blocks(self, view_set: ViewSet, instance_id: str, events: TimeRange, end: int) -> Sequence[BlockRow]:
        """All blocks of each day (of insert time) that may hold events in range: groups are cut per day."""
        metadata = self._lake.metadata
        source = blocks_of(view_set, instance_id)
        if events.is_open:
            return metadata.blocks(**source | {"insert_end": end})
        in_range = metadata.blocks(
            **source | {"insert_end": end, "event_begin": events.begin, "event_end": events.end},
        )
        if not in_range:
            return []
        return metadata.blocks(
            **source
            | {
                "insert_begin": in_range[0].insert_time // DAY * DAY,
                "insert_end": min(end, (in_range[-1].insert_time // DAY + 1) * DAY),
            }
        )

    def _build(
        self, view_set: ViewSet, instance_id: str, groups: Sequence[BlockGroup], visible_end: int, patience: _Patience
    ) -> list[Partition]:
        """Builds the groups side by side. Raises `PartitionConflict` or `_BuiltElsewhere` when a look at what others
        built meanwhile is needed, after all that could be built was."""
        builds = [self._shared_build(view_set, instance_id, group, visible_end) for group in groups]
        built: list[Partition] = []
        conflict: PartitionConflict | None = None
        elsewhere: list[str] = []
        failure: Exception | None = None
        for build in builds:
            try:
                built.append(patience.result(build))
            except PartitionConflict as changed:
                conflict = changed
            except _BuiltElsewhere as other:
                elsewhere += other.leases
            except QueryError:
                raise
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        if elsewhere:
            raise _BuiltElsewhere(elsewhere, conflict=conflict is not None)
        if conflict is not None:
            raise conflict
        return built

    def _shared_build(
        self, view_set: ViewSet, instance_id: str, group: BlockGroup, visible_end: int
    ) -> Future[Partition]:
        """The build of this very group that is under way, or a new one."""
        insert_range = group.insert_range
        has_rows = group.carried_in is None or group.carried_in.with_rows
        key = (view_set.name, instance_id, insert_range.begin, insert_range.end, group.source_hash, has_rows)
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
            raise _BuiltElsewhere([name])
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
            if partition.end_insert_time > visible_end and is_good(partition, view_set):
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
        ends = [each.end_insert_time for each in newer if is_good(each, view_set)]
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
    """Whether a partition is made of exactly the blocks of a group, and has its rows if they are wanted."""
    has_rows = partition.schema_hash != view_set.state_hash
    return (
        is_good(partition, view_set)
        and (has_rows or (group.carried_in is not None and not group.carried_in.with_rows))
        and partition.source_hash == group.source_hash
        and (partition.begin_insert_time, partition.end_insert_time)
        == (group.insert_range.begin, group.insert_range.end)
    )
