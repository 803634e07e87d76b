"""The first tier: what is closed gets covered, whenever it was ingested, and nothing else."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event

import pytest
from daemon.telemetry import (
    DEADLINE_S,
    MIDNIGHT,
    HandClock,
    Telemetry,
    always,
    check_lake,
    check_view,
    cover,
    global_partitions,
    needed_objects,
    objects_of,
)
from hypothesis import given
from hypothesis import strategies as st

from micromegas.config import LakeSettings
from micromegas.daemon import fresh_partitions
from micromegas.daemon.fresh_partitions import FreshPartitions, piece_end
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND, closed_end
from micromegas.lake import Lake
from micromegas.query.build_leases import PREFIX, BuildLeases
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@given(st.integers(0, 3 * HOUR // SECOND), st.integers(1, 3 * HOUR // SECOND))
def test_pieces_fit_into_the_buckets_of_the_merges(begin_s: int, length_s: int) -> None:
    begin, end = begin_s * SECOND, (begin_s + length_s) * SECOND
    position, pieces = begin, 0
    while position < end:
        stop = piece_end(position, end)
        assert position < stop <= end
        assert position // HOUR == (stop - 1) // HOUR
        if position // MINUTE != (stop - 1) // MINUTE:
            assert position % MINUTE == 0
            assert stop % MINUTE == 0
        position, pieces = stop, pieces + 1
    assert pieces <= 7


def test_an_empty_lake_stays_empty(lake: Lake, clock: HandClock) -> None:
    cover(lake, LOG_ENTRIES, clock)
    assert lake.metadata.all_partitions() == []
    assert closed_end(lake) == 0, "nothing was ingested, so nothing is committed"


def test_the_open_second_is_left_alone_and_covered_once_it_is_over(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    clock.now += SECOND // 2
    telemetry.send_logs()
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 1
    clock.now += SECOND // 2
    # Nothing more is ever ingested: the second is closed nevertheless.
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0
    before = global_partitions(lake, LOG_ENTRIES), lake.metadata.watermark()
    clock.now += DAY
    cover(lake, LOG_ENTRIES, clock)
    assert (global_partitions(lake, LOG_ENTRIES), lake.metadata.watermark()) == before, "idle lakes are not written to"


def test_a_block_that_arrives_after_its_second_was_closed_is_late_in_insert_time_too(
    lake: Lake, clock: HandClock
) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += SECOND
    cover(lake, LOG_ENTRIES, clock)
    # A server whose clock is behind.
    clock.now -= SECOND
    telemetry.send_logs()
    assert check_lake(lake, [telemetry]) == 1
    clock.now += 3 * SECOND
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0


def test_everything_of_a_long_absence_is_caught_up(lake: Lake, clock: HandClock) -> None:
    random = Random(7)
    telemetry = Telemetry(lake, 1)
    # Busy minutes, idle hours, idle days, across midnight; measures only now and then.
    for pause in [SECOND, 20 * SECOND, 3 * MINUTE, HOUR, 5 * HOUR, 3 * DAY, 40 * DAY]:
        for _ in range(4):
            telemetry.send_logs(2)
            clock.now += random.randrange(pause)
        telemetry.send_values()
    clock.now += SECOND
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
    assert check_lake(lake, [telemetry]) == 0
    before = lake.metadata.all_partitions()
    assert all(each.begin_insert_time // HOUR == (each.end_insert_time - 1) // HOUR for each in before)
    assert len(before) <= 2 * len(telemetry.logs) + 2 * len(telemetry.values), "idle time costs no rows"
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
    assert lake.metadata.all_partitions() == before


def test_blocks_of_other_tags_are_not_looked_through_for_ever(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(10):
        telemetry.send_logs(1)
        clock.now += 20 * SECOND
    cover(lake, MEASURES, clock)
    markers = global_partitions(lake, MEASURES)
    assert [each.num_rows for each in markers] == [0]
    assert markers[0].file_path is None
    assert markers[0].end_insert_time == MIDNIGHT + 3 * MINUTE
    assert check_view(lake, MEASURES, {}) == 0


def test_large_ranges_are_cut_into_pieces(lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(12):
        telemetry.send_logs(5)
        clock.now += 25 * SECOND
    for _ in range(6):
        telemetry.send_logs(5)
        clock.now += SECOND // 10
    clock.now += SECOND
    monkeypatch.setattr(fresh_partitions, "MAX_PIECE_OBJECTS", 12)
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0
    # Only what came within one second is more than a piece should have.
    assert sorted(each.num_rows for each in global_partitions(lake, LOG_ENTRIES))[-2:] == [10, 30]


@pytest.mark.parametrize("limit", [1, 2])
def test_a_piece_never_ends_between_blocks_of_one_second(
    lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(9):
        telemetry.send_logs(1)
        clock.now += 400_000_000
    clock.now += SECOND
    monkeypatch.setattr(fresh_partitions, "MAX_PIECE_BLOCKS", limit)
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0


def test_partitions_of_another_schema_are_made_again(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(5):
        telemetry.send_logs()
        clock.now += 40 * SECOND
    clock.now += SECOND
    assert LOG_ENTRIES.decoded is not None
    older = dataclasses.replace(LOG_ENTRIES, decoded=dataclasses.replace(LOG_ENTRIES.decoded, decoder_version=0))
    cover(lake, older, clock)
    old = global_partitions(lake, LOG_ENTRIES)
    assert {each.schema_hash for each in old} == {older.schema_hash}
    clock.now += MINUTE
    telemetry.send_logs()
    clock.now += SECOND
    cover(lake, LOG_ENTRIES, clock)
    new = global_partitions(lake, LOG_ENTRIES)
    assert {each.schema_hash for each in new} == {LOG_ENTRIES.schema_hash}
    assert check_lake(lake, [telemetry]) == 0


def test_an_undecodable_block_is_recorded_and_its_neighbours_are_there(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    broken = telemetry.send_broken_logs()
    telemetry.send_logs()
    clock.now += SECOND
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0
    assert [each.failed_blocks for each in global_partitions(lake, LOG_ENTRIES)] == [1]
    errors = lake.metadata.block_errors()
    assert [(each.block_id, each.view_set) for each in errors] == [(broken.block_id, "log_entries")]
    assert errors[0].error


def test_racing_daemons_without_leases_make_no_gap_overlap_or_duplicate(
    lake_backend: LakeSettings, lake: Lake, clock: HandClock
) -> None:
    telemetry = Telemetry(lake, 1)
    with Lake.open(lake_backend, clock) as other, ThreadPoolExecutor(4) as threads:
        for _ in range(6):
            for _ in range(3):
                telemetry.send_logs()
                clock.now += 7 * SECOND
            passes = [
                threads.submit(FreshPartitions(each, LOG_ENTRIES, clock).cover, 0, always)
                for each in (lake, other, lake, other)
            ]
            assert [each.result() for each in passes] == [0, 0, 0, 0]
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0
    assert objects_of(lake) == needed_objects(lake), "losers leave no file"


def test_a_piece_that_another_daemon_is_at_holds_up_none_of_the_others(
    lake_backend: LakeSettings, lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(6):
        telemetry.send_logs()
        clock.now += HOUR
    with Lake.open(lake_backend, clock) as other, ThreadPoolExecutor(1) as threads:
        at_it, go_on = Event(), Event()
        put_file = lake.objects.put_file

        def slow(local_path: Path, path: str) -> int:
            at_it.set()
            assert go_on.wait(DEADLINE_S)
            return put_file(local_path, path)

        monkeypatch.setattr(lake.objects, "put_file", slow)
        first = threads.submit(FreshPartitions(lake, LOG_ENTRIES, clock, BuildLeases(lake, 60.0)).cover, 0, always)
        assert at_it.wait(DEADLINE_S)
        try:
            assert FreshPartitions(other, LOG_ENTRIES, clock, BuildLeases(other, 60.0)).cover(0, always) == 0
            assert check_lake(other, [telemetry]) == 1, "all but the one that is claimed"
        finally:
            go_on.set()
        assert first.result() == 0
        assert check_lake(other, [telemetry]) == 0
        assert len(global_partitions(other, LOG_ENTRIES)) == 6
    assert objects_of(lake) == needed_objects(lake), "nothing was made twice"


def test_a_claim_of_a_daemon_that_was_killed_runs_out(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += HOUR
    begin = MIDNIGHT // MINUTE * MINUTE
    assert lake.metadata.acquire_lease(f"{PREFIX}log_entries/global/{begin}", "dead", 15 * SECOND) is not None
    shared = FreshPartitions(lake, LOG_ENTRIES, clock, BuildLeases(lake, 15.0))
    assert shared.cover(0, always) == 0
    assert check_lake(lake, [telemetry]) == 1
    clock.now += 15 * SECOND
    assert shared.cover(0, always) == 0
    assert check_lake(lake, [telemetry]) == 0
