"""HTTP/1.1 connections for an ASGI application, inside a running event loop. Installs no signal handlers.

uvicorn reads and writes the protocol; who may wait how long, and how it ends, is said here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from micromegas.config import HttpSettings
from micromegas.serve.ports import keep_alive
from micromegas.serve.tls import Certificate

BACKLOG = 1024
KEEP_ALIVE_S = 75
MAX_HEADER_BYTES = 64 * 1024
_CLOSING_STEP_S = 0.02


class Listener:
    """`await start()` listens (`port` is then the bound port), `await stop()` lets running requests finish first."""

    def __init__(self, app: Any, settings: HttpSettings) -> None:
        self._settings = settings
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self.port = settings.port
        self._config = uvicorn.Config(
            app,
            http=H11Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=settings.max_calls,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )

    async def start(self) -> None:
        """Raises `OSError` when the address can't be had, or the certificate can't be used."""
        self._config.load()
        settings, certificate = self._settings, Certificate.of(self._settings)
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            return _Connection(self._config, self._state, {}, loop, header_timeout_s=settings.header_timeout_s)

        self._server = await loop.create_server(
            connection,
            settings.host,
            settings.port,
            backlog=BACKLOG,
            reuse_port=settings.share_port,
            ssl=None if certificate is None else certificate.listening(),
            ssl_handshake_timeout=None if certificate is None else settings.header_timeout_s,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        for listening in self._server.sockets:
            keep_alive(listening)
        if certificate is not None:
            self._watching = loop.create_task(certificate.watch())

    async def stop(self) -> None:
        """Takes no more requests, waits until the running ones are answered and their answers read, for
        `drain_timeout_s`, then breaks them off."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.drain_timeout_s
        if self._watching is not None:
            self._watching.cancel()
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=self._settings.drain_timeout_s)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)
        # a connection closes itself when the last byte of its answer has left
        while self._state.connections and loop.time() < end:
            await asyncio.sleep(_CLOSING_STEP_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        # not waited for: from Python 3.12 on that lasts until the last handshake has ended, or been given up
        self._server = None


class _Connection(H11Protocol):
    """Gives up on headers that don't come, and hands its transport to the application (`scope["state"]`), which may
    have to break an answer off: what simply ended would pass for a whole one."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        header_timeout_s: float,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._header_timeout_s = header_timeout_s
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        self.app_state = {"transport": transport}
        self._waiting = self.loop.call_later(self._header_timeout_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_asking = self.cycle is not None and not self.cycle.response_complete
        if is_asking:
            self._stop_waiting()
        elif self._waiting is None and not self.transport.is_closing():
            self._waiting = self.loop.call_later(self._header_timeout_s, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
