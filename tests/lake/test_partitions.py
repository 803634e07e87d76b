"""Replacing partitions: all or nothing, never overlapping, never with a file that somebody is deleting."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from micromegas.config import LakeSettings
from micromegas.lake import Lake, LakeError, Partition, PartitionConflict, new_partition_id

RACERS = 6
HOUR = 3600 * 10**9


def partition(begin: int, end: int, *, file_path: str | None = None, view_set: str = "log_entries") -> Partition:
    return Partition(
        view_set=view_set,
        instance_id="global",
        begin_insert_time=begin,
        end_insert_time=end,
        min_event_time=None if file_path is None else begin - 5,
        max_event_time=None if file_path is None else end - 5,
        updated=1,
        file_path=file_path,
        file_size=0 if file_path is None else 10,
        num_rows=0 if file_path is None else 3,
        schema_hash=b"\x00\xff",
        source_hash=b"source",
        failed_blocks=2,
    )


def written(lake: Lake, begin: int, end: int) -> Partition:
    """A partition whose file exists and is registered as being written."""
    path = f"views/log_entries/global/{new_partition_id()}.parquet"
    lake.metadata.add_expiring_object(path, lake.clock() + HOUR)
    lake.objects.put(path, b"0123456789")
    return partition(begin, end, file_path=path)


def add(lake: Lake, new: Partition, *replaced: Partition) -> None:
    lake.metadata.replace_partitions(
        new.view_set, new.instance_id, frozenset(each.partition_id for each in replaced), new
    )


def test_partitions_are_kept_and_found(lake: Lake) -> None:
    first, second, empty = written(lake, 100, 200), written(lake, 200, 300), partition(300, 400)
    for each in (first, second, empty):
        add(lake, each)
    add(lake, partition(100, 200, view_set="measures"))
    find = lake.metadata.partitions
    assert find("log_entries", "global") == [first, second, empty]
    assert find("log_entries", "other") == []
    assert find("log_entries", "global", insert_begin=200, insert_end=201) == [second]
    assert find("log_entries", "global", insert_begin=199, insert_end=200) == [first]
    assert find("log_entries", "global", event_begin=195, event_end=195) == [first, second]
    assert len(lake.metadata.all_partitions()) == 4


def test_replacing_retires_files_after_the_grace(lake_backend: LakeSettings) -> None:
    now = [10**18]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        parts = [written(lake, 0, 10), written(lake, 10, 20), partition(20, 30)]
        for each in parts:
            add(lake, each)
        merged = written(lake, 0, 30)
        add(lake, merged, *parts)
        assert lake.metadata.all_partitions() == [merged]
        assert lake.sweep_expired() == 0
        now[0] += int(lake_backend.retired_grace_s * 1e9) - 1
        assert lake.sweep_expired() == 0
        now[0] += 1
        assert lake.sweep_expired() == 2
        assert [each.path for each in lake.objects.list("views")] == [merged.file_path]
        lake.metadata.replace_partitions("log_entries", "global", frozenset({merged.partition_id}), None)
        assert lake.metadata.all_partitions() == []
        now[0] += HOUR
        assert lake.sweep_expired() == 1
        assert list(lake.objects.list("views")) == []


@pytest.mark.parametrize("overlap", [(5, 6), (0, 10), (9, 11), (-5, 1), (-5, 50)])
def test_unexpected_neighbours_are_conflicts(lake: Lake, overlap: tuple[int, int]) -> None:
    old = written(lake, 0, 10)
    add(lake, old)
    with pytest.raises(PartitionConflict, match="log_entries/global"):
        add(lake, written(lake, *overlap))
    ghost = written(lake, 0, 10)
    with pytest.raises(PartitionConflict):
        add(lake, written(lake, 0, 10), old, ghost)
    with pytest.raises(PartitionConflict):
        add(lake, written(lake, 50, 60), old)
    with pytest.raises(PartitionConflict):
        lake.metadata.replace_partitions("log_entries", "global", frozenset({ghost.partition_id}), None)
    assert lake.metadata.all_partitions() == [old]


def test_ranges_that_touch_do_not_overlap(lake: Lake) -> None:
    add(lake, partition(0, 10))
    add(lake, partition(10, 20))
    add(lake, partition(-10, 0))
    assert len(lake.metadata.all_partitions()) == 3


def test_a_file_must_be_registered_and_not_doomed(lake_backend: LakeSettings) -> None:
    now = [10**18]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        with pytest.raises(PartitionConflict, match=r"views/unknown\.parquet"):
            add(lake, partition(0, 10, file_path="views/unknown.parquet"))
        late = written(lake, 0, 10)
        now[0] += 2 * HOUR
        # Expired but not yet being deleted: may still be adopted.
        in_time = written(lake, 20, 30)
        now[0] += 2 * HOUR
        add(lake, in_time)
        assert [each.path for each in lake.metadata.expired_objects(10)] == [late.file_path]
        with pytest.raises(PartitionConflict):
            add(lake, late)
        assert lake.metadata.all_partitions() == [in_time]
        # The deleter died before it forgot: the next one does it again.
        assert lake.sweep_expired() == 1
        assert [each.path for each in lake.objects.list("views")] == [in_time.file_path]


def test_a_partition_belongs_to_its_instance(lake: Lake) -> None:
    with pytest.raises(LakeError, match="measures/global"):
        lake.metadata.replace_partitions("log_entries", "global", frozenset(), partition(0, 1, view_set="measures"))
    with pytest.raises(ValueError, match="is empty"):
        partition(10, 10)
    with pytest.raises(ValueError, match="rows in file"):
        replace(partition(0, 1), num_rows=4)


def test_racing_writers_never_overlap(lake: Lake) -> None:
    """Everybody reads, builds and replaces at random; whoever comes second must be told."""

    def work(seed: int) -> int:
        order = random.Random(seed)
        won = 0
        for _ in range(12):
            begin = order.randrange(0, 8) * 10
            end = begin + order.choice([10, 20, 40])
            present = lake.metadata.partitions("log_entries", "global", insert_begin=begin, insert_end=end)
            begin = min([begin, *(each.begin_insert_time for each in present)])
            end = max([end, *(each.end_insert_time for each in present)])
            try:
                add(lake, written(lake, begin, end), *present)
                won += 1
            except PartitionConflict:
                continue
        return won

    with ThreadPoolExecutor(6) as threads:
        wins = sum(threads.map(work, range(6)))
    assert wins > 0
    ranges = [(each.begin_insert_time, each.end_insert_time) for each in lake.metadata.all_partitions()]
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))
    for each in lake.metadata.all_partitions():
        assert each.file_path is not None
        assert lake.objects.size(each.file_path) == 10


def test_of_those_who_come_at_once_one_wins(lake: Lake) -> None:
    starters = Barrier(RACERS)

    def race(racer: int) -> list[bool]:
        won = []
        for number in range(10):
            starters.wait()
            try:
                # Each a little different, so that nothing but the check for overlaps can tell.
                add(lake, partition(number * 100 + racer, number * 100 + 50 + racer))
                won.append(True)
            except PartitionConflict:
                won.append(False)
        return won

    with ThreadPoolExecutor(RACERS) as threads:
        rounds = list(zip(*threads.map(race, range(RACERS)), strict=True))
    assert [sum(each) for each in rounds] == [1] * 10
    assert len(lake.metadata.all_partitions()) == 10


def test_retention_of_partitions(lake: Lake) -> None:
    for begin in range(0, 50, 10):
        add(lake, written(lake, begin, begin + 10))
    assert lake.metadata.retire_partitions_before(30, 2) == 2
    assert lake.metadata.retire_partitions_before(30, 2) == 1
    assert lake.metadata.retire_partitions_before(30, 2) == 0
    assert [each.begin_insert_time for each in lake.metadata.all_partitions()] == [30, 40]
