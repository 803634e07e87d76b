"""The daemon as it runs: freshness, leases, draining, and faults that stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from daemon.telemetry import (
    DEADLINE_S,
    MIDNIGHT,
    HandClock,
    Telemetry,
    check_lake,
    global_partitions,
    needed_objects,
    objects_of,
)
from servers.postgres import PostgresServer
from servers.proxy import CuttableProxy

from micromegas.config import DaemonSettings, LakeSettings
from micromegas.daemon import Daemon
from micromegas.daemon import daemon as daemon_module
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE
from micromegas.lake import Lake
from micromegas.views.block_rows import BlockRows, RowsRequest
from micromegas.views.block_source import BlockSource
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES

QUICK = DaemonSettings(tick_s=0.05, lease_ttl_s=1.0, sweep_interval_s=0.2)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test in an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@asynccontextmanager
async def running(
    lake: Lake, settings: DaemonSettings = QUICK, clock: Callable[[], int] | None = None
) -> AsyncIterator[Daemon]:
    """A daemon at work; drained at the end."""
    daemon = Daemon(lake, settings, clock)
    task = asyncio.create_task(daemon.run())
    try:
        yield daemon
    finally:
        await daemon.stop()
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must happen sooner or later."""
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@in_loop
async def test_whatever_is_ingested_gets_covered_without_further_traffic(lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    async with running(lake):
        for _ in range(3):
            await asyncio.to_thread(telemetry.send_logs)
            await asyncio.to_thread(telemetry.send_values)
            await until(lambda: check_lake(lake, [telemetry]) == 0)
    assert lake.metadata.block_errors() == []


@in_loop
async def test_daemons_side_by_side_do_the_work_once(lake_backend: LakeSettings, lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    with Lake.open(lake_backend) as second, Lake.open(lake_backend) as third:
        async with running(lake), running(second), running(third):
            for _ in range(10):
                await asyncio.to_thread(telemetry.send_logs)
                await asyncio.to_thread(telemetry.send_values)
                await asyncio.sleep(0.1)
            await until(lambda: check_lake(lake, [telemetry]) == 0)
    assert objects_of(lake) == needed_objects(lake)


@in_loop
async def test_a_daemon_that_stops_hands_over_at_once(lake_backend: LakeSettings, lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    # A lease so long that only a hand-over lets the other one work within the deadline.
    patient = dataclasses.replace(QUICK, lease_ttl_s=3600.0)
    async with running(lake, patient):
        await asyncio.to_thread(telemetry.send_logs)
        await until(lambda: check_lake(lake, [telemetry]) == 0)
    with Lake.open(lake_backend) as second:
        async with running(second, patient):
            await asyncio.to_thread(telemetry.send_logs)
            await until(lambda: check_lake(lake, [telemetry]) == 0)


@in_loop
async def test_a_lease_that_is_not_renewed_runs_out(lake_backend: LakeSettings, lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    # Taken by a daemon that was killed.
    for name in ("log_entries/second", "measures/second", "housekeeping"):
        assert lake.metadata.acquire_lease(f"daemon/{name}", "dead", 500_000_000) is not None
    async with running(lake):
        await asyncio.to_thread(telemetry.send_logs)
        await until(lambda: check_lake(lake, [telemetry]) == 0)


@in_loop
async def test_cancelling_drains_too(lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    daemon = Daemon(lake, QUICK)
    task = asyncio.create_task(daemon.run())
    await until(lambda: check_lake(lake, [telemetry]) == 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await daemon.stop()
    token = lake.metadata.acquire_lease("daemon/log_entries/second", "somebody else", 1)
    assert token is not None, "leases are given back"


@in_loop
async def test_a_daemon_stopped_before_it_ran_ends(lake: Lake) -> None:
    daemon = Daemon(lake, QUICK)
    await daemon.stop()
    async with asyncio.timeout(DEADLINE_S):
        await daemon.run()


class Panic(BaseException):
    """What native code raises when it must not go on."""


class PanickingRows:
    """Rows of a view whose code is broken."""

    pending = 0
    estimated_bytes = 0

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def append(self, block: BlockSource) -> list[str]:
        raise self._error(f"broken at {block.block_id}")

    def take(self) -> pa.RecordBatch:
        raise AssertionError("rows were asked for though no block was taken in")

    finish = take


@pytest.mark.parametrize("error", [RuntimeError, Panic])
@in_loop
async def test_a_broken_view_does_not_stop_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def panicking(_request: RowsRequest) -> BlockRows:
        return PanickingRows(error)

    assert LOG_ENTRIES.decoded is not None
    broken = dataclasses.replace(LOG_ENTRIES, decoded=dataclasses.replace(LOG_ENTRIES.decoded, new_rows=panicking))
    monkeypatch.setattr(daemon_module, "GLOBAL_VIEW_SETS", (broken, MEASURES))
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake")) as lake, caplog.at_level(logging.ERROR):
        telemetry = Telemetry(lake, 1)
        async with running(lake):
            for _ in range(2):
                await asyncio.to_thread(telemetry.send_logs)
                await asyncio.to_thread(telemetry.send_values)
                await until(lambda: check_lake(lake, [telemetry]) == len(telemetry.logs))
            await until(lambda: "log_entries" in caplog.text)
        assert global_partitions(lake, LOG_ENTRIES) == []


@in_loop
async def test_a_database_that_goes_away_comes_back(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = CuttableProxy(postgres_server.port)
    direct = LakeSettings(lake_dir=tmp_path / "lake", database_url=postgres_url)
    cut_off = LakeSettings(
        lake_dir=tmp_path / "lake", database_url=postgres_url.replace(str(postgres_server.port), str(proxy.port))
    )
    with contextlib.ExitStack() as opened:
        opened.callback(proxy.close)
        mine = opened.enter_context(Lake.open(direct))
        its = opened.enter_context(Lake.open(cut_off))
        telemetry = Telemetry(mine, 1)
        async with running(its):
            await asyncio.to_thread(telemetry.send_logs)
            await until(lambda: check_lake(mine, [telemetry]) == 0)
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(telemetry.send_logs)
            await until(lambda: "metadata database" in caplog.text)
            assert check_lake(mine, [telemetry]) == 1
            await asyncio.to_thread(proxy.restore)
            await until(lambda: check_lake(mine, [telemetry]) == 0)


@in_loop
async def test_nothing_is_lost_when_all_were_away_for_a_week(lake_backend: LakeSettings) -> None:
    clock = HandClock()
    random = Random(7)
    with contextlib.ExitStack() as opened:
        lakes = [opened.enter_context(Lake.open(lake_backend, clock)) for _ in range(3)]
        telemetries = [Telemetry(lakes[0], seed) for seed in range(2)]
        for telemetry in telemetries * 24:
            await asyncio.to_thread(telemetry.send_logs)
            await asyncio.to_thread(telemetry.send_values)
            clock.now += random.choice([MINUTE, 5 * HOUR, 9 * HOUR])
        assert clock.now > MIDNIGHT + 6 * DAY
        clock.now = (clock.now // DAY + 2) * DAY

        def is_whole() -> bool:
            if check_lake(lakes[0], telemetries):
                return False
            partitions = [
                each for view_set in (LOG_ENTRIES, MEASURES) for each in global_partitions(lakes[0], view_set)
            ]
            days = {(each.view_set, each.begin_insert_time // DAY) for each in partitions}
            return len(partitions) == len(days)

        async with contextlib.AsyncExitStack() as stack:
            for lake in lakes:
                await stack.enter_async_context(running(lake, clock=clock))
            await until(is_whole)
        assert lakes[0].metadata.block_errors() == []
        clock.now += 2 * HOUR
        while lakes[0].sweep_expired():
            pass
        assert objects_of(lakes[0]) == needed_objects(lakes[0])
