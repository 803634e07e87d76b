"""One HTTP server on the address of ingestion, inside a running event loop. Must never install signal handlers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

BACKLOG = 1024
LOOK_S = 0.01
_HEADERS_MS = 30_000
_OPENING_S = 30.0
_LOOK_LIMIT_S = 2.0
logger = logging.getLogger(__name__)


class Door:
    """`await open()` returns when connections are accepted; `stop()` begins its end, `await ended(…)` waits for it."""

    def __init__(
        self, app: Any, host: str, port: int, max_connections: int, files: tuple[Path, Path] | None = None
    ) -> None:
        """`files`: a certificate and its key; then there is TLS only. They are read until the door is open."""
        self._host, self._port = host, port
        self._behind = _Behind(app)
        self._tls = None if files is None else _trusting_anybody()
        chain, key = files or (None, None)
        self._server = Server(
            self._behind,
            address=host,
            port=port,
            interface=Interfaces.RSGI,
            websockets=False,
            backlog=BACKLOG,
            # granian counts connections here, not requests: real back-pressure is the bounded queue.
            backpressure=max_connections,
            # while it doesn't know yet which HTTP a client will speak, granian waits for it without end
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADERS_MS),
            ssl_cert=chain,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls12,
            log_enabled=False,
        )
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """`OSError` when it ends instead, or answers nobody. Another door may be on the same port, and show the same
        certificate."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        try:
            async with asyncio.timeout(_OPENING_S):
                while not await self._is_seen():
                    if self.has_ended:
                        raise OSError(f"the http server ended at its start on port {self._port}")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise OSError(f"the http server does not answer on port {self._port}") from None

    def stop(self) -> None:
        """Takes no more connections; those that wait for a request are closed, the others after their answer."""
        self._server.stop()  # type: ignore[no-untyped-call]

    @property
    def has_ended(self) -> bool:
        return self._task is not None and self._task.done()

    async def ended(self, timeout_s: float) -> None:
        """Returns when it has ended, or after so long."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)

    async def _is_seen(self) -> bool:
        request = f"GET {self._behind.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        try:
            # another door may let nobody in now
            async with asyncio.timeout(_LOOK_LIMIT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                try:
                    writer.write(request.encode())
                    return await reader.readexactly(12) == b"HTTP/1.1 200"
                finally:
                    # without a farewell, which a door that ends might never answer
                    writer.transport.abort()
        except (OSError, EOFError):
            return False


class _Behind:
    """An application, and a path that nobody else knows, by which its door is told from others on the same port."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.path = f"/{secrets.token_hex(16)}"

    def __rsgi__(self, scope: Any, exchange: Any) -> Awaitable[None]:
        if scope.path == self.path:
            return _told_that_it_is_open(exchange)
        answering: Awaitable[None] = self._app.__rsgi__(scope, exchange)
        return answering


async def _told_that_it_is_open(exchange: Any) -> None:
    exchange.response_empty(200, [])


def _trusting_anybody() -> ssl.SSLContext:
    """For a look at our own address, which the certificate needn't be for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
