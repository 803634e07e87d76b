"""Merging: exactly the rows of the parts, in order of time, and only when nothing can come any more."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from daemon.telemetry import (
    MIDNIGHT,
    HandClock,
    Telemetry,
    always,
    check_lake,
    cover,
    global_partitions,
    merge,
    needed_objects,
    objects_of,
    rows_of,
)

from micromegas.config import LakeSettings
from micromegas.daemon import merge_buckets, merging, row_merge
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND
from micromegas.daemon.merge_buckets import TIERS, buckets_to_merge
from micromegas.daemon.merging import Merging, merge_bucket
from micromegas.daemon.row_merge import merged_rows
from micromegas.lake import Lake, Partition
from micromegas.query.build_leases import BuildLeases
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.partition_writer import RowFile
from micromegas.views.view_set import ViewSet

MINUTES, HOURS, DAYS = TIERS
HASH = LOG_ENTRIES.schema_hash


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def part(begin: int, end: int, **changes: object) -> Partition:
    fields: dict[str, object] = {
        "view_set": "log_entries",
        "instance_id": "global",
        "begin_insert_time": begin,
        "end_insert_time": end,
        "min_event_time": None,
        "max_event_time": None,
        "updated": 0,
        "file_path": None,
        "file_size": 0,
        "num_rows": 0,
        "schema_hash": HASH,
        "source_hash": b"",
    }
    return Partition(**(fields | changes))  # type: ignore[arg-type]


def test_a_bucket_is_merged_once_it_is_over_and_by_one_tier() -> None:
    parts = [part(0, SECOND), part(SECOND, 2 * SECOND), part(MINUTE, MINUTE + SECOND)]
    assert buckets_to_merge(parts, MINUTES, HASH, MINUTE) == []
    (bucket,) = buckets_to_merge(parts, MINUTES, HASH, MINUTE + MINUTES.settle)
    assert (bucket.insert_range.begin, bucket.insert_range.end, list(bucket.parts)) == (0, MINUTE, parts[:2])
    assert buckets_to_merge(parts, HOURS, HASH, MINUTE + MINUTES.settle) == []
    due = HOUR + HOURS.settle
    assert buckets_to_merge(parts, MINUTES, HASH, due) == []
    assert [len(each.parts) for each in buckets_to_merge(parts, HOURS, HASH, due)] == [3]
    assert buckets_to_merge(parts, HOURS, HASH, DAY + DAYS.settle) == []
    assert [len(each.parts) for each in buckets_to_merge(parts, DAYS, HASH, DAY + DAYS.settle)] == [3]


def test_buckets_that_must_be_left_alone() -> None:
    late = DAY * 3
    lone = [part(0, SECOND), part(DAY, 2 * DAY)]
    assert [b for tier in TIERS for b in buckets_to_merge(lone, tier, HASH, late)] == []
    sticking_out = [part(0, SECOND), part(SECOND, MINUTE + SECOND), part(MINUTE + SECOND, 2 * MINUTE)]
    assert buckets_to_merge(sticking_out, MINUTES, HASH, 5 * MINUTE) == []
    other_schema = [part(0, SECOND), part(SECOND, 2 * SECOND), part(9 * SECOND, MINUTE, schema_hash=b"other")]
    assert [b for tier in TIERS for b in buckets_to_merge(other_schema, tier, HASH, late)] == []


def test_what_is_too_large_for_a_wide_tier_is_merged_by_a_narrow_one() -> None:
    half = merge_buckets.MAX_MERGED_BYTES // 2
    parts = [
        part(begin, begin + SECOND, file_path=f"f{begin}", file_size=half, num_rows=1)
        for begin in (0, 10 * SECOND, HOUR, HOUR + 10 * SECOND)
    ]
    late = DAY * 3
    assert buckets_to_merge(parts, DAYS, HASH, late) == []
    assert [len(each.parts) for each in buckets_to_merge(parts, HOURS, HASH, late)] == [2, 2]
    assert buckets_to_merge(parts, MINUTES, HASH, late) == []


def test_seconds_become_minutes_hours_and_days(lake: Lake, clock: HandClock) -> None:
    telemetries = [Telemetry(lake, seed) for seed in (1, 2)]
    sizes: list[int] = []
    for step, pause in enumerate([7 * SECOND] * 9 + [5 * MINUTE] * 6 + [3 * HOUR] * 7):
        telemetries[step % 2].send_logs()
        telemetries[1].send_values()
        clock.now += pause
        for view_set in (LOG_ENTRIES, MEASURES):
            cover(lake, view_set, clock)
            if step % 5 == 4:
                merge(lake, view_set, clock)
        sizes.append(len(global_partitions(lake, LOG_ENTRIES)))
    assert max(sizes) > 4
    assert check_lake(lake, telemetries) == 0
    clock.now = MIDNIGHT + DAY + DAYS.settle
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
        merge(lake, view_set, clock)
        (whole,) = global_partitions(lake, view_set)
        assert (whole.begin_insert_time, whole.end_insert_time) == (MIDNIGHT, MIDNIGHT + DAY)
        times = rows_of(lake, whole)[view_set.min_column].cast(pa.int64()).to_pylist()
        assert times == sorted(times)
        before = lake.metadata.watermark()
        merge(lake, view_set, clock)
        assert global_partitions(lake, view_set) == [whole]
        assert lake.metadata.watermark() == before
    assert check_lake(lake, telemetries) == 0
    # Everything replaced outlives its row for the queries that still read it, and no longer.
    assert objects_of(lake) > needed_objects(lake)
    clock.now += 2 * HOUR
    while lake.sweep_expired():
        pass
    assert objects_of(lake) == needed_objects(lake)


def test_a_merge_waits_for_blocks_that_are_not_covered_yet(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(3):
        telemetry.send_logs()
        clock.now += SECOND
        cover(lake, LOG_ENTRIES, clock)
    telemetry.send_logs()
    clock.now += 2 * MINUTE
    merge(lake, LOG_ENTRIES, clock)
    assert len(global_partitions(lake, LOG_ENTRIES)) == 3
    cover(lake, LOG_ENTRIES, clock)
    merge(lake, LOG_ENTRIES, clock)
    (minute,) = global_partitions(lake, LOG_ENTRIES)
    assert minute.end_insert_time == MIDNIGHT + MINUTE
    assert check_lake(lake, [telemetry]) == 0


def test_ranges_without_rows_merge_into_one_without_a_file(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(5):
        telemetry.send_logs()
        clock.now += MINUTE
        cover(lake, MEASURES, clock)
    assert len(global_partitions(lake, MEASURES)) == 4
    clock.now += HOUR
    merge(lake, MEASURES, clock)
    assert [each.file_path for each in global_partitions(lake, MEASURES)] == [None]


def test_of_racing_merges_one_wins_and_the_others_leave_nothing(
    lake_backend: LakeSettings, lake: Lake, clock: HandClock
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(10):
        telemetry.send_logs()
        clock.now += SECOND
        cover(lake, LOG_ENTRIES, clock)
    clock.now += 2 * MINUTE
    with Lake.open(lake_backend, clock) as other, ThreadPoolExecutor(4) as threads:
        passes = [
            threads.submit(Merging(each, LOG_ENTRIES, MINUTES, clock).merge, always)
            for each in (lake, other, lake, other)
        ]
        assert [each.result() for each in passes] == [0, 0, 0, 0]
    assert check_lake(lake, [telemetry]) == 0
    assert len(global_partitions(lake, LOG_ENTRIES)) == 1
    clock.now += 2 * HOUR
    lake.sweep_expired()
    assert objects_of(lake) == needed_objects(lake)


def test_a_part_that_is_missing_fails_its_bucket_and_no_other(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(4):
        for _ in range(2):
            telemetry.send_logs()
            clock.now += SECOND
            cover(lake, LOG_ENTRIES, clock)
        clock.now += MINUTE
    clock.now += 2 * SECOND
    victim = global_partitions(lake, LOG_ENTRIES)[2]
    assert victim.file_path is not None
    lake.objects.delete([victim.file_path])
    assert Merging(lake, LOG_ENTRIES, MINUTES, clock).merge(always) == 1
    left = global_partitions(lake, LOG_ENTRIES)
    assert len(left) == 5
    assert victim in left, "what is broken stays listed, so that queries tell"


# The merge of rows alone, with a view of two columns.
SMALL = ViewSet(
    name="small",
    schema=pa.schema([required("time", TIMESTAMP), required("name", DICT_STRING)]),
    min_column="time",
    max_column="time",
    has_global=True,
)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake")) as opened:
        yield opened


def small_rows(times: list[int], names: list[str]) -> pa.Table:
    return pa.table({"time": pa.array(times, TIMESTAMP), "name": pa.array(names).cast(DICT_STRING)}, SMALL.schema)


def write_part(lake: Lake, scratch: Path, number: int, groups: list[pa.Table]) -> Partition:
    """A partition file of these row groups."""
    row_file = RowFile(scratch / f"{number}.parquet", SMALL)
    for group in groups:
        row_file.write(group)
    written = row_file.close()
    path = f"views/small/global/{number}.parquet"
    size = lake.objects.put_file(scratch / f"{number}.parquet", path)
    return part(
        number,
        number + 1,
        view_set="small",
        file_path=path,
        file_size=size,
        num_rows=written.num_rows,
        min_event_time=written.min_event_time,
        max_event_time=written.max_event_time,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("runs", [2, 64])
def test_rows_survive_any_overlap(
    folder_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, runs: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr(row_merge, "BATCH_ROWS", 7)
    monkeypatch.setattr(row_merge, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(row_merge, "MAX_OPEN_RUNS", runs)
    is_sorted = seed % 2 == 0
    parts, expected = [], []
    for number in range(8):
        groups = []
        for group in range(random.randrange(1, 4)):
            start = random.randrange(0, 300) * (1 if seed < 3 else 0) + number * 50
            times = [start + random.randrange(100) for _ in range(random.randrange(1, 60))]
            if is_sorted:
                times.sort()
            names = [f"{number}/{group}/{place}" for place in range(len(times))]
            expected += zip(times, names, strict=True)
            groups.append(small_rows(times, names))
        parts.append(write_part(folder_lake, tmp_path, number, groups))
    tables = list(merged_rows(folder_lake, SMALL, parts))
    found = [
        row
        for table in tables
        for row in zip(table["time"].cast(pa.int64()).to_pylist(), table["name"].to_pylist(), strict=True)
    ]
    assert Counter(found) == Counter(expected)
    if is_sorted and runs == 64:
        assert [time for time, _ in found] == sorted(time for time, _ in expected)
    for table in tables:
        assert table.schema == SMALL.schema
        dictionary = table["name"].chunk(0).dictionary
        assert set(dictionary.to_pylist()) == set(table["name"].to_pylist()), "no value of other row groups"


def test_merged_files_have_row_groups_dictionaries_and_a_page_index(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(4):
        telemetry.send_logs(50)
        clock.now += SECOND
        cover(lake, LOG_ENTRIES, clock)
    clock.now += 2 * MINUTE
    merge(lake, LOG_ENTRIES, clock)
    (merged,) = global_partitions(lake, LOG_ENTRIES)
    assert merged.file_path is not None
    group = pq.read_metadata(io.BytesIO(lake.objects.get(merged.file_path))).row_group(0)
    assert group.num_rows == 200
    for number in range(group.num_columns):
        column = group.column(number)
        assert column.has_column_index
        assert column.has_offset_index
        assert column.compression == "ZSTD"
        if column.path_in_schema in ("process_id", "exe", "target", "properties"):
            assert column.has_dictionary_page


def test_what_is_kept_for_months_takes_less_room(lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(2):
        telemetry.send_logs(3000)
        clock.now += SECOND
        cover(lake, LOG_ENTRIES, clock)
        clock.now += 2 * HOUR
    merge(lake, LOG_ENTRIES, clock)
    clock.now += 2 * DAY
    merge(lake, LOG_ENTRIES, clock)
    (day,) = global_partitions(lake, LOG_ENTRIES)
    assert day.end_insert_time - day.begin_insert_time == DAY
    rows = rows_of(lake, day).cast(LOG_ENTRIES.schema)
    sizes = {}
    for lasting in (False, True):
        path = tmp_path / f"{lasting}.parquet"
        file = RowFile(path, LOG_ENTRIES, lasting=lasting)
        file.write(rows)
        file.close()
        sizes[lasting] = path.stat().st_size
    assert abs(day.file_size - sizes[True]) < sizes[False] - sizes[True]


def test_a_merge_ends_when_the_daemon_stops(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(3):
        telemetry.send_logs()
        clock.now += SECOND
        cover(lake, LOG_ENTRIES, clock)
    clock.now += 2 * MINUTE
    before = global_partitions(lake, LOG_ENTRIES)
    allowed = iter([True, False])
    assert Merging(lake, LOG_ENTRIES, MINUTES, clock).merge(lambda: next(allowed)) == 0
    assert global_partitions(lake, LOG_ENTRIES) == before
    assert check_lake(lake, [telemetry]) == 0


def test_partitions_of_another_schema_are_not_mixed_in(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    assert LOG_ENTRIES.decoded is not None
    older = dataclasses.replace(LOG_ENTRIES, decoded=dataclasses.replace(LOG_ENTRIES.decoded, decoder_version=0))
    for view_set in (older, LOG_ENTRIES):
        telemetry.send_logs()
        clock.now += SECOND
        watermark = lake.metadata.watermark()
        cover(lake, view_set, clock, begin=watermark // SECOND * SECOND)
    clock.now += 2 * MINUTE
    merge(lake, LOG_ENTRIES, clock)
    assert len({each.schema_hash for each in global_partitions(lake, LOG_ENTRIES)}) == 2
    cover(lake, LOG_ENTRIES, clock)
    merge(lake, LOG_ENTRIES, clock)
    assert [each.schema_hash for each in global_partitions(lake, LOG_ENTRIES)] == [HASH]
    assert check_lake(lake, [telemetry]) == 0


def test_buckets_are_shared_among_daemons_and_none_is_merged_twice(
    lake_backend: LakeSettings, lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(4):
        for _ in range(2):
            telemetry.send_logs()
            clock.now += SECOND
            cover(lake, LOG_ENTRIES, clock)
        clock.now += MINUTE
    with Lake.open(lake_backend, clock) as other:
        mine = Merging(lake, LOG_ENTRIES, MINUTES, clock, BuildLeases(lake, 60.0))
        its = Merging(other, LOG_ENTRIES, MINUTES, clock, BuildLeases(other, 60.0))
        merged: list[Lake] = []

        def counted(of: Lake, *arguments: Any, **claim: Any) -> bool:
            merged.append(of)
            if of is lake and len(merged) == 1:
                # In the midst of the first bucket: the other daemon does all that is left.
                assert its.merge(always) == 0
            return merge_bucket(of, *arguments, **claim)

        monkeypatch.setattr(merging, "merge_bucket", counted)
        assert mine.merge(always) == 0
        assert merged == [lake, other, other, other]
        assert len(global_partitions(lake, LOG_ENTRIES)) == 4
        assert check_lake(lake, [telemetry]) == 0
