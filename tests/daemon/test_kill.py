"""A daemon that dies at any instant: nothing is lost or doubled, and no object stays behind for ever."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from daemon.log_minutes import asked, keep_logs, keep_stats, kept
from daemon.restless import fast_clock, work_without_pause
from daemon.telemetry import (
    DEADLINE_S,
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
from daemon.upkeep_rounds import UpkeepRounds

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.views.measures import MEASURES


def settle(lake: Lake, clock: Callable[[], int]) -> None:
    """What a daemon that lives does, until nothing is left to do."""
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
        merge(lake, view_set, clock)


@contextmanager
def query_engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = QueryEngine(lake, QuerySettings(memory_bytes=64 * 1024 * 1024, statement_timeout_s=60.0))
    try:
        yield opened
    finally:
        opened.close()


def check_stats(lake: Lake, engine: QueryEngine, telemetry: Telemetry) -> None:
    """Each message is counted once, wherever its count comes from, and no partition overlaps another."""
    assert sum(asked(engine).values()) == sum(map(len, telemetry.logs.values()))
    partitions = sorted(global_partitions(lake, LOG_STATS), key=lambda each: each.begin_insert_time)
    for before, after in itertools.pairwise(partitions):
        assert before.end_insert_time <= after.begin_insert_time


def sweep(lake: Lake) -> None:
    while lake.sweep_expired():
        pass
    lake.sweep_unreferenced(HOUR)


# Imports once what every process to be killed needs.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["micromegas.daemon"])


@contextmanager
def restless(settings: LakeSettings, begin: int, speed: int) -> Iterator[None]:
    """The program at work; killed without a warning at the end."""
    told, tells = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=work_without_pause, args=(settings, begin, speed, tells))
    process.start()
    tells.close()
    try:
        assert told.poll(DEADLINE_S)
        assert told.recv() == "working"
        yield
    finally:
        process.kill()
        process.join()
        told.close()


def test_killed_processes_leave_a_whole_lake(lake_backend: LakeSettings) -> None:
    random = Random(1)
    begin, speed = time.time_ns(), 120
    clock = fast_clock(begin, speed)
    with Lake.open(lake_backend, clock) as lake:
        telemetry = Telemetry(lake, 1)
        telemetry.send_logs()
        sending = threading.Event()

        def send() -> None:
            while not sending.wait(0.03):
                telemetry.send_logs()
                telemetry.send_values()

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for _ in range(3):
                # Two at once, which also get in each other's way.
                with restless(lake_backend, begin, speed), restless(lake_backend, begin, speed):
                    time.sleep(random.uniform(0, 0.4))
        finally:
            sending.set()
            sender.join()
    # Half a day later; the sum of all that was killed must be mended by one pass.
    later = HandClock(clock() + 12 * HOUR)
    with Lake.open(lake_backend, later) as lake, query_engine(lake) as engine:
        check_lake(lake, [telemetry])
        check_stats(lake, engine, telemetry)
        settle(lake, later)
        keep_stats(lake, engine, later)
        assert check_lake(lake, [telemetry]) == 0
        check_stats(lake, engine, telemetry)
        sweep(lake)
        later.now += 12 * HOUR
        sweep(lake)
        assert objects_of(lake) == needed_objects(lake)
        assert check_lake(lake, [telemetry]) == 0
        check_stats(lake, engine, telemetry)
        assert lake.metadata.block_errors() == []


class Killed(BaseException):
    """Stands for the death of the process: nothing of the product catches it."""


STEPS = {
    "metadata": ("add_expiring_object", "replace_partitions", "insert_batch", "record_block_errors"),
    "objects": ("put_file",),
}


class Fuse:
    """Calls of the lake's stores, one of which is the last: the process dies before or after it."""

    def __init__(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.last: int | None = None
        for store_name, methods in STEPS.items():
            store = getattr(lake, store_name)
            for method in methods:
                monkeypatch.setattr(store, method, self._guarded(getattr(store, method)))

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            self._step()
            result = call(*arguments, **named)
            self._step()
            return result

        return guarded

    def _step(self) -> None:
        if self.last is not None and self.calls >= self.last:
            raise Killed
        self.calls += 1


def test_death_between_any_two_steps_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake"), clock) as lake:
        telemetry = Telemetry(lake, 1)
        fuse = Fuse(lake, monkeypatch)
        died = 0
        for instant in range(40):
            fuse.last = None
            telemetry.send_logs()
            if instant % 4 == 3:
                telemetry.send_broken_logs()
            clock.now += SECOND
            fuse.calls, fuse.last = 0, instant % 20
            try:
                FreshPartitions(lake, LOG_ENTRIES, clock).cover(0, always)
                clock.now += 2 * MINUTE * (instant % 3)
                Merging(lake, LOG_ENTRIES, TIERS[0], clock).merge(always)
            except Killed:
                died += 1
            fuse.last = None
            check_lake(lake, [telemetry])
        assert 20 <= died < 40
        clock.now += DAY
        settle(lake, clock)
        assert check_lake(lake, [telemetry]) == 0
        clock.now += DAY
        sweep(lake)
        assert objects_of(lake) == needed_objects(lake)


def test_death_in_the_middle_of_a_reduction_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake"), clock) as lake, query_engine(lake) as engine:
        telemetry = Telemetry(lake, 1)
        fuse = Fuse(lake, monkeypatch)
        keeper = kept(lake, engine, clock)
        died = 0
        for instant in range(24):
            fuse.last = None
            telemetry.send_logs()
            clock.now += MINUTE + HOUR * (instant % 3 == 2)
            keep_logs(lake, clock)
            fuse.calls, fuse.last = 0, instant % 8
            try:
                keeper.cover(0, always)
                keeper.merge(keeper.tiers[0], always)
            except Killed:
                died += 1
            fuse.last = None
            check_stats(lake, engine, telemetry)
        assert died >= 12
        clock.now += DAY
        keep_logs(lake, clock)
        keep_stats(lake, engine, clock)
        check_stats(lake, engine, telemetry)
        assert global_partitions(lake, LOG_STATS)
        clock.now += DAY
        sweep(lake)
        assert objects_of(lake) == needed_objects(lake)


def test_everything_at_once_may_be_killed_while_days_pass(lake_backend: LakeSettings) -> None:
    with UpkeepRounds(lake_backend, seed=2) as rounds:
        rounds.run(3)
        rounds.finish()
