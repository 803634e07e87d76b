"""Retention and sweeps: rows first, whole days, and never anything that is still needed."""

from __future__ import annotations

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
)

from micromegas.config import DaemonSettings
from micromegas.daemon import retention
from micromegas.daemon.housekeeping import Housekeeping
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND
from micromegas.lake import Lake, LakeUnavailable
from micromegas.lake.pack import pack_key
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES

SETTINGS = DaemonSettings(retention_days=2)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def keep_house(lake: Lake, clock: HandClock) -> None:
    assert Housekeeping(lake, SETTINGS, clock).run(always) == 0


def forget(telemetry: Telemetry, lake: Lake) -> None:
    """What the test expects is what the lake still has of it."""
    kept = {block.block_id for block in lake.metadata.blocks()}
    telemetry.logs = {key: value for key, value in telemetry.logs.items() if key in kept}
    telemetry.values = {key: value for key, value in telemetry.values.items() if key in kept}


def test_what_is_older_than_the_horizon_goes_and_all_else_stays(
    lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BLOCKS_PER_STEP", 3)
    monkeypatch.setattr(retention, "PARTITIONS_PER_STEP", 2)
    old, both, young = (Telemetry(lake, seed) for seed in range(3))
    for day in range(5):
        clock.now = MIDNIGHT + day * DAY + HOUR
        for telemetry in (old, both) if day < 2 else (both, young):
            for _ in range(2):
                telemetry.send_logs()
                telemetry.send_values()
                clock.now += MINUTE
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
        merge(lake, view_set, clock)
    everything = check_lake(lake, [old, both, young])
    # Late on the fourth day; the horizon is the begin of the second.
    clock.now = MIDNIGHT + 5 * DAY - SECOND
    keep_house(lake, clock)
    blocks = lake.metadata.blocks()
    assert min(block.insert_time for block in blocks) >= MIDNIGHT + 2 * DAY
    assert len(blocks) == 3 * 2 * 2 * 2
    for telemetry in (old, both, young):
        forget(telemetry, lake)
    assert (old.logs, old.values) == ({}, {})
    assert check_lake(lake, [old, both, young]) == everything
    assert set(lake.metadata.processes([old.process_id, both.process_id, young.process_id])) == {
        both.process_id,
        young.process_id,
    }
    assert len(lake.metadata.stream_rows()) == 4
    # Rows are gone at once, objects when no query can be reading them any more.
    assert objects_of(lake) > needed_objects(lake)
    clock.now += 2 * HOUR
    lake.sweep_expired()
    assert objects_of(lake) == needed_objects(lake)
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock, begin=MIDNIGHT + 2 * DAY)
    assert check_lake(lake, [old, both, young]) == 0


def test_a_pack_that_young_blocks_share_outlives_the_old_ones(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += 10 * DAY
    telemetry.send_logs()
    clock.now += SECOND
    keep_house(lake, clock)
    clock.now += 2 * HOUR
    keep_house(lake, clock)
    forget(telemetry, lake)
    cover(lake, LOG_ENTRIES, clock)
    assert check_lake(lake, [telemetry]) == 0
    assert len(telemetry.logs) == 1
    assert lake.metadata.block_errors() == []


def test_a_retained_lake_is_not_covered_again_below_the_horizon(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += SECOND
    cover(lake, LOG_ENTRIES, clock)
    clock.now += 10 * DAY
    keep_house(lake, clock)
    cover(lake, LOG_ENTRIES, clock)
    assert global_partitions(lake, LOG_ENTRIES) == []
    assert lake.metadata.process_rows() == []


def test_what_killed_writers_left_is_swept_and_fresh_packs_are_not(lake: Lake, clock: HandClock) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    orphan = pack_key(clock.now)
    lake.objects.put(orphan, b"payload")
    abandoned = "views/log_entries/global/abandoned.parquet"
    lake.metadata.add_expiring_object(abandoned, clock.now + HOUR)
    lake.objects.put(abandoned, b"rows")
    keep_house(lake, clock)
    assert {orphan, abandoned} < objects_of(lake), "their writers may be about to commit"
    clock.now += 3 * HOUR
    fresh = pack_key(clock.now)
    lake.objects.put(fresh, b"payload")
    keep_house(lake, clock)
    assert objects_of(lake) == needed_objects(lake) | {fresh}


def test_one_kind_of_work_that_fails_does_not_stop_the_others(
    lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError("no")

    monkeypatch.setattr(lake, "delete_blocks_before", fail)
    lake.metadata.add_expiring_object("views/x", clock.now)
    clock.now += 1
    assert Housekeeping(lake, SETTINGS, clock).run(always) == 1
    assert lake.metadata.expired_objects(10) == []

    def unavailable(*_: object) -> int:
        raise LakeUnavailable("gone")

    monkeypatch.setattr(lake, "delete_blocks_before", unavailable)
    with pytest.raises(LakeUnavailable):
        Housekeeping(lake, SETTINGS, clock).run(always)
