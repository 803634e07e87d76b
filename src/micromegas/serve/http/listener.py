"""HTTP/1.1 connections for an ASGI application, inside a running event loop. Installs no signal handlers.

uvicorn reads and writes the protocol; who may wait how long, and how it ends, is said here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from micromegas.config import HttpSettings
from micromegas.serve.acceptor import Acceptor, Share
from micromegas.serve.tls import Certificate

KEEP_ALIVE_S = 75
MAX_HEADER_BYTES = 64 * 1024
_CLOSING_STEP_S = 0.02


class Listener:
    """`await start()` listens (`port` is then the bound port), `await stop()` lets running requests finish first."""

    def __init__(self, app: Any, settings: HttpSettings, share: Share | None = None) -> None:
        """`share`: of the port, where other processes listen on it, too."""
        self._settings = settings
        self._share = share
        self._state = ServerState()
        self._acceptor: Acceptor | None = None
        self._certificate: Certificate | None = None
        self._arriving: set[asyncio.Task[None]] = set()
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
        self._certificate = Certificate.of(self._settings)
        self._acceptor = Acceptor(self._settings.host, self._settings.port, self._share, self._take)
        self.port = self._acceptor.port
        self._acceptor.start()
        if self._certificate is not None:
            self._watching = asyncio.create_task(self._certificate.watch())

    async def stop(self) -> None:
        """Takes no more requests, waits until the running ones are answered and their answers read, for
        `drain_timeout_s`, then breaks them off."""
        if self._acceptor is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.drain_timeout_s
        if self._watching is not None:
            self._watching.cancel()
        self._acceptor.stop()
        self._acceptor = None
        for task in self._arriving:
            task.cancel()
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

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._arriving.add(task)
        self._count()
        task.add_done_callback(self._arrived)

    async def _serve(self, connection: socket.socket) -> None:
        """Returns once the connection is made, with TLS after its handshake."""
        loop, certificate, patience_s = asyncio.get_running_loop(), self._certificate, self._settings.header_timeout_s
        # it left, or speaks something else; asyncio closes it
        with suppress(OSError):
            await loop.connect_accepted_socket(
                lambda: _Connection(self._config, self._state, self._count, loop, patience_s),
                connection,
                ssl=None if certificate is None else certificate.pair.context,
                ssl_handshake_timeout=None if certificate is None else patience_s,
            )

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._count()

    def _count(self) -> None:
        if self._acceptor is not None:
            self._acceptor.count(len(self._state.connections) + len(self._arriving))


class _Connection(H11Protocol):
    """Gives up on headers that don't come, and hands its transport to the application (`scope["state"]`), which may
    have to break an answer off: what simply ended would pass for a whole one."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        left: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        header_timeout_s: float,
    ) -> None:
        """`left` is called when the connection has ended."""
        super().__init__(config, server_state, {}, loop)
        self._left = left
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
        self._left()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
