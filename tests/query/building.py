"""Other servers that build partitions: programs of their own, which a test tells when to begin and may kill."""

from __future__ import annotations

import asyncio
import threading
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from query.asking import answer

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake, Partition
from micromegas.query import QueryEngine, just_in_time
from micromegas.query.bounds import EVERYTHING
from micromegas.query.just_in_time import JustInTime
from micromegas.views.log_entries import LOG_ENTRIES

# Imports once what every process needs.
SERVERS = get_context("forkserver")
SERVERS.set_forkserver_preload(["micromegas.query"])


class Builds:
    """Counts the builds of this process, which decode blocks, from here on."""

    def __init__(self) -> None:
        self.count = 0
        self._guard = threading.Lock()
        self._build = just_in_time.build_partition
        just_in_time.build_partition = self._counted

    def _counted(self, *arguments: Any) -> Partition:
        with self._guard:
            self.count += 1
        return self._build(*arguments)

    def end(self) -> None:
        just_in_time.build_partition = self._build


def ask_when_told(settings: LakeSettings, sql: str, queries: int, parent: Connection) -> None:
    """A server: says "ready", waits for a word, asks all queries at once, tells the answers and how much it built."""
    builds = Builds()
    with Lake.open(settings) as lake:
        engine = QueryEngine(lake, QuerySettings(statement_timeout_s=60.0))

        async def at_once() -> list[Any]:
            return [each.to_pylist() for each in await asyncio.gather(*(answer(engine, sql) for _ in range(queries)))]

        parent.send("ready")
        parent.recv()
        answers = asyncio.run(at_once())
        engine.close()
    parent.send((answers, builds.count))


def build_until_killed(
    settings: LakeSettings, instance_id: str, step: str, lease_ttl_s: float, parent: Connection
) -> None:
    """A server that says "building" when it has come to a step of the metadata, and never gets further."""
    with Lake.open(settings) as lake:

        def stuck(*_arguments: Any, **_named: Any) -> None:
            parent.send("building")
            threading.Event().wait()

        setattr(lake.metadata, step, stuck)
        JustInTime(lake, 60.0, lease_ttl_s).rows(LOG_ENTRIES, instance_id, EVERYTHING)
