"""Queries while telemetry arrives and the daemon turns it into partitions: every answer is whole, and none is twice."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from query.asking import answer, column
from query.traffic import MadeTraffic

from micromegas.config import DaemonSettings
from micromegas.daemon import Daemon
from micromegas.lake import Lake
from micromegas.query import QueryEngine


def test_answers_only_grow_while_the_daemon_works(lake: Lake, engine: QueryEngine) -> None:
    traffics = [MadeTraffic(lake, seed) for seed in (1, 2)]
    sent = 0

    def send() -> None:
        nonlocal sent
        for traffic in traffics:
            traffic.logs(f"{sent}", "same")
            sent += 1

    async def scenario() -> None:
        daemon = Daemon(lake, DaemonSettings(tick_s=0.05))
        work = asyncio.create_task(daemon.run())
        loop = asyncio.get_running_loop()
        last = 0
        with ThreadPoolExecutor(1) as sender:
            # Until partitions and a tail exist side by side.
            while len(lake.metadata.partitions("log_entries", "global")) < 3:
                sending = loop.run_in_executor(sender, send)
                acknowledged = 2 * sent
                found = await answer(engine, "SELECT count(*), count(DISTINCT block_id || msg) FROM log_entries")
                total, distinct = column(found, 0)[0], column(found, 1)[0]
                assert total == distinct, "a row came twice"
                assert total >= max(last, acknowledged), "a row is missing"
                last = total
                await sending
        await daemon.stop()
        await work
        found = await answer(engine, "SELECT count(*) FROM log_entries")
        assert column(found) == [2 * sent]

    asyncio.run(scenario())
