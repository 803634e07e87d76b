"""The ingestion service inside a running event loop: start, drain, stop. It must never install signal handlers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from micromegas.config import IngestSettings
from micromegas.ingest.app import IngestApp
from micromegas.wire import BatchSink

BACKLOG = 1024
logger = logging.getLogger(__name__)
START_POLL_S = 0.01


class IngestServer:
    """Serves `IngestApp` on the settings' address; `port` tells the real one when 0 was asked for.

    All methods must be called in one and the same event loop.
    """

    def __init__(self, sink: BatchSink, settings: IngestSettings, readiness: Callable[[], None]) -> None:
        self._settings = settings
        self._app = IngestApp(sink, settings, readiness)
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen; returns when connections are accepted. Raises `OSError` when the address is taken."""
        with _claimed_address(self._settings.host, self._settings.port) as claim:
            self.port = claim.getsockname()[1]
            self._server = Server(
                self._app,
                address=self._settings.host,
                port=self.port,
                interface=Interfaces.RSGI,
                websockets=False,
                backlog=BACKLOG,
                # granian counts connections here, not requests: real back-pressure is the bounded queue.
                backpressure=self._settings.max_connections,
                http1_settings=HTTP1Settings(header_read_timeout=30_000),
                log_enabled=False,
            )
            self._task = asyncio.get_running_loop().create_task(self._server.serve())
            await self._until_accepting(self._task)

    async def stop(self) -> None:
        """Refuse new requests, wait until all accepted ones are durable and answered, then close."""
        if self._server is None or self._task is None:
            return
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._app.drain()
        except TimeoutError:
            # What waits was not acknowledged: its senders will come again.
            logger.warning("closing although commits did not end within %g s", self._settings.drain_timeout_s)
        self._server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait([self._task], timeout=self._settings.drain_timeout_s)
        # A request whose body was still coming in when the drain began may have been taken since.
        if not self._app.is_idle:
            await asyncio.wait([asyncio.ensure_future(self._app.drain())], timeout=self._settings.drain_timeout_s)
        self._app.close()

    async def _until_accepting(self, task: asyncio.Task[None]) -> None:
        while True:
            if task.done():
                task.result()
                raise OSError(f"the http server ended at its start on port {self.port}")
            try:
                _, writer = await asyncio.open_connection(self._settings.host, self.port)
            except ConnectionRefusedError:
                await asyncio.sleep(START_POLL_S)
            else:
                writer.close()
                return


def _claimed_address(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that a free port stays ours until granian has bound it as well.

    granian shares ports with whoever else asks for sharing: without the first, exclusive bind, two servers on one port
    would split the connections between them and neither would notice.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if port != 0:
        with socket.socket(family, socket.SOCK_STREAM) as exclusive:
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            exclusive.bind(address)
    claim = socket.socket(family, socket.SOCK_STREAM)
    try:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        claim.bind(address)
    except BaseException:
        claim.close()
        raise
    return claim
