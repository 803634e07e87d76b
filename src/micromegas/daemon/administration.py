"""What administrators order to be done to partitions by hand: make them, make them again, retire them.

It must never lose rows that can't be made again, except where it is told to retire them; and never be needed, as the
daemon does the same by itself, sooner or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from micromegas.daemon.block_buckets import BlockBuckets
from micromegas.daemon.insert_clock import SECOND, Clock
from micromegas.daemon.metadata_buckets import MetadataBuckets
from micromegas.daemon.ordered_buckets import KeepGoing, OrderedBuckets, OrderRefused, covered, shown, shown_file
from micromegas.daemon.reduced_buckets import ReducedBuckets
from micromegas.lake import Lake, PartitionConflict, PartitionRange, UnknownPartitions
from micromegas.query import Reductions
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.partition_writer import InsertRange

MAX_BUCKETS = 100_000

# Each try that fails means that a daemon has got on with the same range.
_TRIES = 10

Result = TypeVar("Result")


class Administration:
    """Orders about the partitions of one lake. Thread-safe. All but the scalar ones give the lines of their log as they
    go, and do what a line tells before they give it.

    They raise `OrderRefused`, `QueryError` or `LakeError`; what was done until then stays, and doing it again goes on
    from there. Views defined by SQL are known once `reductions` are given, which need the engine that gives the orders.
    """

    reductions: Reductions | None = None

    def __init__(self, lake: Lake, clock: Clock | None = None) -> None:
        self._lake = lake
        self._clock = clock or lake.clock

    def materialize(self, view_set_name: str, whole: InsertRange, step: int, keep_going: KeepGoing) -> Iterator[str]:
        """See to it that each bucket of `step` ns of a global view is one partition that holds what it must.

        A bucket that is up to date is left alone; one that isn't over yet, or that a partition sticks out of, too. A
        rest shorter than `step` is ignored.
        """
        made = self._buckets_of(view_set_name)
        buckets = _buckets(whole, step)
        made.check_lengths(buckets)
        for bucket in buckets:
            if not keep_going():
                return
            done = self._again_after_conflicts(partial(made.materialize, bucket, keep_going))
            yield f"{view_set_name} {shown(bucket)}: {done}"

    def regenerate(self, view_set_name: str, whole: InsertRange, step: int, keep_going: KeepGoing) -> Iterator[str]:
        """Make each bucket of `step` ns of a global view from its blocks or sources, whatever is there already.

        Refused, before anything is done, when the buckets don't tile the range, are not over yet or would cut a
        partition, and when blocks are gone that rows were made of.
        """
        made = self._buckets_of(view_set_name)
        buckets = _buckets(whole, step)
        made.check_lengths(buckets)
        if (whole.end - whole.begin) % step:
            raise OrderRefused(f"the range is no multiple of {step // SECOND} s")
        for bucket in buckets:
            made.check_regenerable(bucket)
        for bucket in buckets:
            if not keep_going():
                return
            done = self._again_after_conflicts(partial(made.regenerate, bucket, keep_going))
            yield f"{view_set_name} {shown(bucket)}: {done}"

    def retire(self, view_set_name: str, instance_id: str, whole: InsertRange) -> Iterator[str]:
        """Retire in one transaction the partitions of a view instance that lie wholly within the range, of whatever
        schema. Queries that read them go on; the next ones make them again, as far as the blocks are still there."""
        _check_range(whole)
        retired = self._lake.metadata.retire_partitions_within(view_set_name, instance_id, whole.begin, whole.end)
        for partition in retired:
            inserted, file = shown(covered(partition)), shown_file(partition)
            yield f"{view_set_name}/{instance_id} {inserted}: retired {partition.num_rows} rows, {file}"
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
            "" if each is None else f"{each.view_set}/{each.instance_id} {shown(_range_of(each))}" for each in ranges
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

    def _buckets_of(self, name: str) -> OrderedBuckets:
        view_set = VIEW_SETS.get(name)
        reductions = self.reductions
        if reductions is not None and (reduced := reductions.view_set(name)) is not None:
            return ReducedBuckets(self._lake, reduced, reductions, self._clock)
        known = [each.name for each in VIEW_SETS.values() if each.decoded is not None and each.has_global]
        if view_set is not None and name in known:
            return BlockBuckets(self._lake, view_set, self._clock)
        if view_set is not None and view_set.is_read_from_metadata:
            return MetadataBuckets(self._lake, view_set, self._clock)
        if reductions is not None:
            known += [each.name for each in reductions.view_sets]
        what = "unknown view set" if view_set is None else "no global partitions in view set"
        raise OrderRefused(f"{what} {name!r}; there are some in {', '.join(known)}")


def _check_range(whole: InsertRange) -> None:
    if whole.begin >= whole.end:
        raise OrderRefused(f"the range {shown(whole)} is empty")


def _buckets(whole: InsertRange, step: int) -> list[InsertRange]:
    _check_range(whole)
    if step < SECOND:
        raise OrderRefused("buckets must last at least a second")
    count = (whole.end - whole.begin) // step
    if count == 0:
        raise OrderRefused(f"the range {shown(whole)} is shorter than a bucket of {step // SECOND} s")
    if count > MAX_BUCKETS:
        raise OrderRefused(f"{count} buckets, at most {MAX_BUCKETS} at once: choose longer ones or a shorter range")
    return [InsertRange(whole.begin + place * step, whole.begin + (place + 1) * step) for place in range(count)]


def _range_of(named: PartitionRange) -> InsertRange:
    return InsertRange(named.begin_insert_time, named.end_insert_time)
