"""One server process: any of the roles ingestion, Flight SQL, HTTP, PostgreSQL gateway and daemon over one lake, in one
event loop. Owns their order of start and stop; installs no signal handlers and reads no environment."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from micromegas.config import (
    DaemonSettings,
    FlightSettings,
    HttpSettings,
    IngestSettings,
    LakeSettings,
    PostgresSettings,
    QuerySettings,
)
from micromegas.daemon import Daemon
from micromegas.daemon.selection import Selection
from micromegas.ingest import IngestServer
from micromegas.lake import Lake, Replication
from micromegas.query import QueryEngine
from micromegas.serve.flight.server import FlightServer
from micromegas.serve.http.app import QueryApi
from micromegas.serve.http.listener import Listener
from micromegas.serve.postgres.server import PostgresServer
from micromegas.serve.query_engine import query_engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The lake, and the settings of each role that this process plays (None: it does not)."""

    lake: LakeSettings
    query: QuerySettings = field(default_factory=QuerySettings)
    ingest: IngestSettings | None = None
    flight: FlightSettings | None = None
    http: HttpSettings | None = None
    postgres: PostgresSettings | None = None
    daemon: DaemonSettings | None = None


class ListenError(Exception):
    """A role can't listen on its address; the text names role, address and reason."""


class Node:
    """`await node.start()` returns the addresses of its roles once all of them answer; `await node.stop()` drains them.

    Ingestion stops first and answers what it took; then queries get their time to finish; the lake closes last.
    `version` is told to clients.
    """

    def __init__(self, settings: NodeSettings, version: str) -> None:
        self._settings = settings
        self._version = version
        self._stack = AsyncExitStack()
        self._daemon: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, str]:
        """Addresses by role. Raises `LakeError`, `ListenError`, `PolicyError` or `ShadowError`; what had started is
        stopped again."""
        try:
            return await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        await self._stack.aclose()

    async def failed(self) -> None:
        """Returns never, or raises what ended a role that should have gone on."""
        if self._daemon is None:
            await asyncio.Event().wait()
        else:
            await asyncio.shield(self._daemon)
            raise RuntimeError("the daemon ended by itself")

    async def _start(self) -> dict[str, str]:
        settings = self._settings
        addresses: dict[str, str] = {}
        lake = await asyncio.to_thread(Lake.open, settings.lake)
        self._stack.push_async_callback(asyncio.to_thread, lake.close)
        if (settings.flight, settings.http, settings.postgres, settings.daemon) != (None, None, None, None):
            engine = await asyncio.to_thread(query_engine, lake, settings.query)
            self._stack.push_async_callback(asyncio.to_thread, engine.close)
            addresses |= await self._start_with(engine, lake)
        if settings.ingest is not None:
            ingest = IngestServer(lake, settings.ingest, lake.check)
            await self._listen("ingestion", settings.ingest, ingest)
            addresses["ingestion"] = f"http://{settings.ingest.host}:{ingest.port}"
        return addresses

    async def _start_with(self, engine: QueryEngine, lake: Lake) -> dict[str, str]:
        """The roles that need an engine."""
        settings = self._settings
        addresses: dict[str, str] = {}
        if settings.daemon is not None:
            select = await asyncio.to_thread(Selection, engine, settings.daemon.policies)
            daemon = Daemon(lake, settings.daemon, select=select, reductions=engine.reductions)
            self._daemon = asyncio.create_task(daemon.run())
            self._stack.push_async_callback(_end_daemon, daemon, self._daemon)
            addresses["daemon"] = "running"
        if settings.flight is not None:
            flight = FlightServer(engine, settings.flight, self._version, time.monotonic, Replication(lake))
            await self._listen("flight sql", settings.flight, flight)
            scheme = "grpc" if settings.flight.tls_certificate is None else "grpc+tls"
            addresses["queries"] = f"{scheme}://{settings.flight.host}:{flight.port}"
        if settings.http is not None:
            http = Listener(QueryApi(engine, settings.http, lake.clock), settings.http)
            try:
                await self._listen("http", settings.http, http)
                scheme = "http" if settings.http.tls_certificate is None else "https"
                addresses["api"] = f"{scheme}://{settings.http.host}:{http.port}"
            except ListenError as error:
                if not settings.http.optional:
                    raise
                logger.warning("no queries over HTTP: %s; name another port with --api-port", error)
        if settings.postgres is not None:
            gateway = PostgresServer(engine, settings.postgres)
            await self._listen("postgresql gateway", settings.postgres, gateway)
            addresses["postgresql"] = f"postgresql://{settings.postgres.host}:{gateway.port}"
        return addresses

    async def _listen(
        self,
        role: str,
        settings: IngestSettings | FlightSettings | HttpSettings | PostgresSettings,
        server: IngestServer | FlightServer | Listener | PostgresServer,
    ) -> None:
        try:
            await server.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ListenError(f"{role} can't listen on {settings.host} port {settings.port}: {reason}") from error
        self._stack.push_async_callback(server.stop)


async def _end_daemon(daemon: Daemon, task: asyncio.Task[None]) -> None:
    await daemon.stop()
    await asyncio.wait([task])
