"""One server: any of the roles ingestion, Flight SQL, HTTP, PostgreSQL gateway and daemon over one lake, in one event
loop, or the answering of queries in workers of its own. Owns their order of start and stop; installs no signal handlers
and reads no environment."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from micromegas.config import ApiKey, FlightSettings, HttpSettings, IngestSettings, PostgresSettings
from micromegas.daemon import Daemon
from micromegas.daemon.selection import Selection
from micromegas.ingest import IngestServer
from micromegas.ingest.server import LOOPBACK
from micromegas.lake import Lake, Replication
from micromegas.query import QueryEngine
from micromegas.serve.acceptor import Share
from micromegas.serve.flight.running import CancelStatus
from micromegas.serve.flight.server import FlightServer
from micromegas.serve.flight.service import CancelElsewhere
from micromegas.serve.http.app import QueryApi
from micromegas.serve.http.listener import Listener
from micromegas.serve.node_settings import FLIGHT, HTTP, POSTGRES, NodeSettings
from micromegas.serve.ports import ListenError
from micromegas.serve.postgres.server import PostgresServer
from micromegas.serve.query_engine import query_engine
from micromegas.serve.self_telemetry import SelfTelemetry
from micromegas.serve.sign_in import TokenAdmission
from micromegas.serve.tls import Certificate
from micromegas.serve.workers.process import WorkerFailed
from micromegas.serve.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Node:
    """`await node.start()` returns the addresses of its roles once all of them answer; `await node.stop()` drains them.

    Ingestion stops first and answers what it took; then queries get their time to finish; the lake closes last. Only
    workers stop before ingestion, which takes what they tell of themselves. `version` is told to clients.
    """

    def __init__(
        self,
        settings: NodeSettings,
        version: str,
        cancel_elsewhere: CancelElsewhere | None = None,
        shares: Mapping[str, Share] | None = None,
    ) -> None:
        """Where this is one of several workers, `cancel_elsewhere` asks the others to end a query, and `shares` are its
        parts in their ports, by role."""
        self._settings, self._workers_settings = settings.parted()
        self._version = version
        self._cancel_elsewhere = cancel_elsewhere
        self._shares = {} if shares is None else shares
        self._stack = AsyncExitStack()
        self._daemon: asyncio.Task[None] | None = None
        self._flight: FlightServer | None = None
        self._engine: QueryEngine | None = None
        self._supervisor: Supervisor | None = None
        self._telemetry = SelfTelemetry()

    async def start(self) -> dict[str, str]:
        """Addresses by role. Raises `LakeError`, `ListenError`, `PolicyError`, `ShadowError` or `WorkerFailed`; what
        had started is stopped again."""
        try:
            return await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        await self._stack.aclose()

    async def failed(self) -> None:
        """Returns never, or raises what ended a role that should have gone on."""
        roles = []
        if self._daemon is not None:
            roles.append(asyncio.shield(self._daemon))
        if self._supervisor is not None:
            roles.append(asyncio.ensure_future(self._supervisor.failed()))
        if not roles:
            await asyncio.Event().wait()
        done, _ = await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
        for role in done:
            role.result()
        raise RuntimeError("the daemon ended by itself")

    @property
    def engine(self) -> QueryEngine:
        """That of a started node with a role that asks."""
        assert self._engine is not None
        return self._engine

    @property
    def telemetry(self) -> SelfTelemetry | None:
        """What its processes tell of themselves, if they do; of a started node."""
        return self._telemetry if self._settings.self_telemetry else None

    def cancel(self, query_id: str, owner: str | None, *, anyones: bool) -> CancelStatus:
        """Ends a query that came to this process by Flight SQL."""
        if self._flight is None:
            return "unknown"
        return self._flight.running.cancel(query_id, owner, anyones=anyones)

    async def _start(self) -> dict[str, str]:
        settings = self._settings
        addresses: dict[str, str] = {}
        lake = await asyncio.to_thread(Lake.open, settings.lake)
        self._stack.push_async_callback(asyncio.to_thread, lake.close)
        if (settings.flight, settings.http, settings.postgres, settings.daemon) != (None, None, None, None):
            self._engine = engine = await asyncio.to_thread(query_engine, lake, settings.query)
            self._stack.push_async_callback(asyncio.to_thread, engine.close)
            addresses |= await self._start_with(engine, lake)
        if settings.ingest is not None:
            addresses["ingestion"] = await self._start_ingestion(lake, settings.ingest)
        if self._workers_settings:
            addresses |= await self._start_workers()
        return addresses

    async def _start_ingestion(self, lake: Lake, settings: IngestSettings) -> str:
        """Its address."""
        try:
            certificate = Certificate.of(settings)
        except OSError as error:
            raise ListenError.because("ingestion", settings.host, settings.port, error) from None
        tokens = None if settings.oidc is None else TokenAdmission(settings.oidc).admits
        own_key: ApiKey | None = None
        if self._settings.self_telemetry and (settings.api_keys or settings.oidc is not None):
            own_key = ApiKey("micromegas", secrets.token_urlsafe())
            settings = replace(settings, api_keys=(*settings.api_keys, own_key))
        ingest = IngestServer(lake, settings, lake.check, certificate, tokens)
        await self._listen("ingestion", settings, ingest)
        address = f"{'http' if certificate is None else 'https'}://{settings.host}:{ingest.port}"
        if self._settings.self_telemetry:
            # its own certificate is for another name, and what vouches for it may not be known here
            port = ingest.port if certificate is None else await ingest.plain_port()
            own = f"http://{settings.host if certificate is None else LOOPBACK}:{port}"
            self._telemetry = SelfTelemetry(own, None if own_key is None else own_key.key)
        return address

    async def _start_workers(self) -> dict[str, str]:
        self._supervisor = Supervisor(self._workers_settings, self._version, self.telemetry)
        self._stack.push_async_callback(self._supervisor.stop)
        try:
            return await self._supervisor.start()
        except WorkerFailed as error:
            if error.kind == ListenError.__name__:
                raise ListenError(str(error)) from None
            raise

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
            flight = self._flight = FlightServer(
                engine,
                settings.flight,
                self._version,
                time.monotonic,
                Replication(lake),
                cancel_elsewhere=self._cancel_elsewhere,
                share=self._shares.get(FLIGHT),
            )
            await self._listen(FLIGHT, settings.flight, flight)
            scheme = "grpc" if settings.flight.tls_certificate is None else "grpc+tls"
            addresses["queries"] = f"{scheme}://{settings.flight.host}:{flight.port}"
        if settings.http is not None:
            http = Listener(QueryApi(engine, settings.http, lake.clock), settings.http, self._shares.get(HTTP))
            try:
                await self._listen(HTTP, settings.http, http)
                scheme = "http" if settings.http.tls_certificate is None else "https"
                addresses["api"] = f"{scheme}://{settings.http.host}:{http.port}"
            except ListenError as error:
                if not settings.http.optional:
                    raise
                logger.warning("no queries over HTTP: %s; name another port with --api-port", error)
        if settings.postgres is not None:
            gateway = PostgresServer(engine, settings.postgres, self._shares.get(POSTGRES))
            await self._listen(POSTGRES, settings.postgres, gateway)
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
            raise ListenError.because(role, settings.host, settings.port, error) from error
        self._stack.push_async_callback(server.stop)


async def _end_daemon(daemon: Daemon, task: asyncio.Task[None]) -> None:
    await daemon.stop()
    await asyncio.wait([task])
