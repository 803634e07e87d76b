"""What administrators order to be done to partitions by hand: make them, make them again, retire them.

It must never lose rows that can't be made again, except where it is told to retire them; and never be needed, as the
daemon does the same by itself, sooner or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import SECOND, Clock, close_until
from micromegas.daemon.merge_buckets import MAX_MERGED_BYTES, MergeBucket
from micromegas.daemon.merging import Stopped, merge_bucket
from micromegas.daemon.source_blocks import lost_blocks
from micromegas.lake import BlockRow, Lake, Partition, PartitionConflict, PartitionRange, UnknownPartitions
from micromegas.views.block_decoding import decoded_from
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet
from micromegas.wire import rfc3339_text

MAX_BUCKETS = 100_000
MAX_BUCKET_BLOCKS = 500_000
"""Of a bucket that is made again, all blocks are listed at once."""

# Each try that fails means that a daemon has got on with the same range.
_TRIES = 10

KeepGoing = Callable[[], bool]
Result = TypeVar("Result")


class OrderRefused(Exception):
    """An order that can't be carried out as it was given; the text says why and what to do."""


class Administration:
    """Orders about the partitions of one lake. Thread-safe. All but the scalar ones give the lines of their log as they
    go, and do what a line tells before they give it.

    They raise `OrderRefused`, or `LakeError`; what was done until then stays, and doing it again goes on from there.
    """

    def __init__(self, lake: Lake, clock: Clock | None = None) -> None:
        self._lake = lake
        self._clock = clock or lake.clock

    def materialize(self, view_set_name: str, whole: InsertRange, step: int, keep_going: KeepGoing) -> Iterator[str]:
        """See to it that each bucket of `step` ns of a global view is one partition that holds what it must.

        A bucket that is up to date is left alone; one that isn't over yet, or that a partition sticks out of, too. A
        rest shorter than `step` is ignored.
        """
        view_set = _made_of_blocks(view_set_name)
        for bucket in _buckets(whole, step):
            if not keep_going():
                return
            done = self._again_after_conflicts(partial(self._materialize, view_set, bucket, keep_going))
            yield f"{view_set.name} {_shown(bucket)}: {done}"

    def regenerate(self, view_set_name: str, whole: InsertRange, step: int, keep_going: KeepGoing) -> Iterator[str]:
        """Make each bucket of `step` ns of a global view from its blocks, whatever is there already.

        Refused, before anything is done, when the buckets don't tile the range, are not over yet or would cut a
        partition, and when blocks are gone that rows were made of.
        """
        view_set = _made_of_blocks(view_set_name)
        buckets = _buckets(whole, step)
        if (whole.end - whole.begin) % step:
            raise OrderRefused(f"the range is no multiple of {step // SECOND} s")
        for bucket in buckets:
            self._check_regenerable(view_set, bucket)
        for bucket in buckets:
            if not keep_going():
                return
            done = self._again_after_conflicts(partial(self._regenerate, view_set, bucket))
            yield f"{view_set.name} {_shown(bucket)}: {done}"

    def retire(self, view_set_name: str, instance_id: str, whole: InsertRange) -> Iterator[str]:
        """Retire in one transaction the partitions of a view instance that lie wholly within the range, of whatever
        schema. Queries that read them go on; the next ones make them again, as far as the blocks are still there."""
        _check_range(whole)
        retired = self._lake.metadata.retire_partitions_within(view_set_name, instance_id, whole.begin, whole.end)
        for partition in retired:
            covered = _shown(InsertRange(partition.begin_insert_time, partition.end_insert_time))
            yield f"{view_set_name}/{instance_id} {covered}: retired {partition.num_rows} rows, {_file(partition)}"
        yield f"{view_set_name}/{instance_id}: {len(retired)} partitions retired"

    def retire_files(self, paths: Sequence[str | None]) -> list[str | None]:
        """Retire the partitions of these files, all or none; says of each what became of it (of None, None)."""

        def retire() -> None:
            self._lake.metadata.retire_partition_files(path for path in paths if path is not None)

        return self._outcomes(paths, [path or "" for path in paths], retire)

    def retire_ranges(self, ranges: Sequence[PartitionRange | None]) -> list[str | None]:
        """Retire the partitions of exactly these ranges, all or none; says of each what became of it (of None, None).

        Needed for partitions without rows, which have no file.
        """

        def retire() -> None:
            self._lake.metadata.retire_partition_ranges(each for each in ranges if each is not None)

        names = [
            "" if each is None else f"{each.view_set}/{each.instance_id} {_shown(_range_of(each))}" for each in ranges
        ]
        return self._outcomes(ranges, names, retire)

    def _outcomes(self, wanted: Sequence[object], names: Sequence[str], retire: Callable[[], None]) -> list[str | None]:
        missing: frozenset[object] = frozenset()
        try:
            self._again_after_conflicts(retire)
        except UnknownPartitions as unknown:
            missing = unknown.missing
        outcomes: list[str | None] = []
        for each, name in zip(wanted, names, strict=True):
            if each is None:
                outcomes.append(None)
            elif each in missing:
                outcomes.append(f"ERROR: no partition {name}")
            elif missing:
                outcomes.append(f"ERROR: {name} was not retired, as others could not be")
            else:
                outcomes.append(f"SUCCESS: retired {name}")
        return outcomes

    def _again_after_conflicts(self, work: Callable[[], Result]) -> Result:
        for _ in range(_TRIES - 1):
            try:
                return work()
            except PartitionConflict:
                continue
        return work()

    def _materialize(self, view_set: ViewSet, bucket: InsertRange, keep_going: KeepGoing) -> str:
        if not close_until(self._lake, bucket.end, self._clock):
            return "not over yet"
        present = self._partitions(view_set, bucket)
        for partition in present:
            if partition.begin_insert_time < bucket.begin or partition.end_insert_time > bucket.end:
                return f"left as it is: partition {_shown(_covered(partition))} reaches beyond it"
        notes = []
        if lost := lost_blocks(self._lake, view_set, present):
            notes.append(f"{lost} blocks that its rows were made of are gone")
        renewed = sum(keep_going() and self._renew(view_set, partition) for partition in present)
        if renewed:
            notes.append(f"{renewed} partitions of an older schema made again")
        made = FreshPartitions(self._lake, view_set, self._clock).fill(bucket, keep_going)
        if made:
            notes.append(f"{made} partitions made")
        parts = self._partitions(view_set, bucket)
        if len(parts) > 1 and all(part.schema_hash == view_set.schema_hash for part in parts):
            merged = MergeBucket(bucket, parts)
            if merged.file_bytes > MAX_MERGED_BYTES:
                notes.append(f"{len(parts)} partitions left apart: too large to be one")
            else:
                try:
                    if merge_bucket(self._lake, view_set, merged, self._clock, keep_going):
                        notes.append(f"{len(parts)} partitions merged")
                except Stopped:
                    notes.append("stopped")
        return ", ".join(notes) or "up to date"

    def _renew(self, view_set: ViewSet, partition: Partition) -> bool:
        """Make a partition of another schema again, if its blocks are all there."""
        if partition.schema_hash == view_set.schema_hash or lost_blocks(self._lake, view_set, [partition]):
            return False
        covered = _covered(partition)
        slot = PartitionSlot(view_set, GLOBAL_INSTANCE, covered, frozenset({partition.partition_id}))
        build_partition(self._lake, slot, self._blocks(view_set, covered))
        return True

    def _check_regenerable(self, view_set: ViewSet, bucket: InsertRange) -> list[Partition]:
        """What is to be replaced, if everything allows it."""
        if not close_until(self._lake, bucket.end, self._clock):
            raise OrderRefused(f"{_shown(bucket)} is not over yet")
        present = self._partitions(view_set, bucket)
        for partition in present:
            if partition.begin_insert_time < bucket.begin or partition.end_insert_time > bucket.end:
                raise OrderRefused(
                    f"partition {_shown(_covered(partition))} does not fit into {_shown(bucket)}: choose longer buckets"
                )
        if lost := lost_blocks(self._lake, view_set, present):
            raise OrderRefused(
                f"{lost} blocks that rows in {_shown(bucket)} were made of are gone: these rows would be lost"
            )
        return present

    def _regenerate(self, view_set: ViewSet, bucket: InsertRange) -> str:
        present = self._check_regenerable(view_set, bucket)
        blocks = self._blocks(view_set, bucket)
        if not blocks and not present:
            return "nothing there"
        replaces = frozenset(partition.partition_id for partition in present)
        made = build_partition(self._lake, PartitionSlot(view_set, GLOBAL_INSTANCE, bucket, replaces), blocks)
        return f"{made.num_rows} rows of {len(blocks)} blocks, {_file(made)}, instead of {len(present)} partitions"

    def _blocks(self, view_set: ViewSet, insert_range: InsertRange) -> list[BlockRow]:
        blocks = self._lake.metadata.blocks(
            tag=decoded_from(view_set).stream_tag,
            insert_begin=insert_range.begin,
            insert_end=insert_range.end,
            limit=MAX_BUCKET_BLOCKS + 1,
        )
        if len(blocks) > MAX_BUCKET_BLOCKS:
            raise OrderRefused(
                f"{_shown(insert_range)} holds more than {MAX_BUCKET_BLOCKS} blocks: choose shorter buckets"
            )
        return blocks

    def _partitions(self, view_set: ViewSet, bucket: InsertRange) -> list[Partition]:
        return self._lake.metadata.partitions(
            view_set.name, GLOBAL_INSTANCE, insert_begin=bucket.begin, insert_end=bucket.end
        )


def _made_of_blocks(name: str) -> ViewSet:
    view_set = VIEW_SETS.get(name)
    if view_set is None:
        raise OrderRefused(f"unknown view set {name!r}")
    if view_set.reduced is not None:
        raise OrderRefused(f"the daemon makes {name} from other views: retire its partitions to have them made again")
    if view_set.decoded is None or not view_set.has_global:
        known = ", ".join(each.name for each in VIEW_SETS.values() if each.decoded is not None and each.has_global)
        raise OrderRefused(f"view set {name} has no global partitions; {known} do")
    return view_set


def _check_range(whole: InsertRange) -> None:
    if whole.begin >= whole.end:
        raise OrderRefused(f"the range {_shown(whole)} is empty")


def _buckets(whole: InsertRange, step: int) -> list[InsertRange]:
    _check_range(whole)
    if step < SECOND:
        raise OrderRefused("buckets must last at least a second")
    count = (whole.end - whole.begin) // step
    if count == 0:
        raise OrderRefused(f"the range {_shown(whole)} is shorter than a bucket of {step // SECOND} s")
    if count > MAX_BUCKETS:
        raise OrderRefused(f"{count} buckets, at most {MAX_BUCKETS} at once: choose longer ones or a shorter range")
    return [InsertRange(whole.begin + place * step, whole.begin + (place + 1) * step) for place in range(count)]


def _covered(partition: Partition) -> InsertRange:
    return InsertRange(partition.begin_insert_time, partition.end_insert_time)


def _range_of(named: PartitionRange) -> InsertRange:
    return InsertRange(named.begin_insert_time, named.end_insert_time)


def _file(partition: Partition) -> str:
    return "no file" if partition.file_path is None else partition.file_path


def _shown(insert_range: InsertRange) -> str:
    return f"[{rfc3339_text(insert_range.begin)}, {rfc3339_text(insert_range.end)})"
