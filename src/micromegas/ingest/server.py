"""The ingestion service inside a running event loop: start, drain, stop. It must never install signal handlers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from micromegas.config import IngestSettings
from micromegas.ingest.app import IngestApp
from micromegas.ingest.authentication import TokenCheck
from micromegas.ingest.certificate import Certificate, Pair, usable_files
from micromegas.ingest.door import Door
from micromegas.wire import BatchSink

LOOPBACK = "127.0.0.1"
logger = logging.getLogger(__name__)


class IngestServer:
    """Serves `IngestApp` on the settings' address; `port` tells the real one when 0 was asked for.

    All methods must be called in one and the same event loop.
    """

    def __init__(
        self,
        sink: BatchSink,
        settings: IngestSettings,
        readiness: Callable[[], None],
        certificate: Certificate | None = None,
        tokens: TokenCheck | None = None,
    ) -> None:
        """With a `certificate` there is TLS only; `tokens` checks those of identity providers."""
        self._settings = settings
        self._app = IngestApp(sink, settings, readiness, tokens)
        self._certificate = certificate
        self._doors: list[Door] = []
        self._secure: Door | None = None
        self._watching: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen; returns when connections are accepted. Raises `OSError` when the address is taken, or the certificate
        can't be used."""
        with _claimed_address(self._settings.host, self._settings.port) as claim:
            self.port = claim.getsockname()[1]
            if self._certificate is None:
                await self._open_plain(self._settings.host, self.port)
            else:
                self._secure = await self._open(self._certificate.pair)
                self._watching = asyncio.get_running_loop().create_task(self._certificate.watch(self._renew))

    async def plain_port(self) -> int:
        """A port of this machine without TLS, for what need not be told who answers: this very process."""
        with _claimed_address(LOOPBACK, 0) as claim:
            port: int = claim.getsockname()[1]
            await self._open_plain(LOOPBACK, port)
        return port

    async def stop(self) -> None:
        """Refuse new requests, wait until all accepted ones are durable and answered, then close."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if not self._doors:
            return
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._app.drain()
        except TimeoutError:
            # What waits was not acknowledged: its senders will come again.
            logger.warning("closing although commits did not end within %g s", self._settings.drain_timeout_s)
        for door in self._doors:
            door.stop()
        for door in self._doors:
            await door.ended(self._settings.drain_timeout_s)
        # A request whose body was still coming in when the drain began may have been taken since.
        if not self._app.is_idle:
            await asyncio.wait([asyncio.ensure_future(self._app.drain())], timeout=self._settings.drain_timeout_s)
        self._app.close()

    async def _open_plain(self, host: str, port: int) -> None:
        door = Door(self._app, host, port, self._settings.max_connections)
        self._doors.append(door)
        await door.open()

    async def _open(self, pair: Pair) -> Door:
        """A door that shows this certificate, beside another that there may be."""
        async with usable_files(pair) as files:
            door = Door(self._app, self._settings.host, self.port, self._settings.max_connections, files)
            self._doors.append(door)
            try:
                await door.open()
            except OSError:
                door.stop()
                raise
        return door

    async def _renew(self, pair: Pair) -> None:
        """Connections that there are keep the door by which they came, until they end. `OSError` where nothing came of
        it."""
        self._doors = [each for each in self._doors if not each.has_ended]
        door = await self._open(pair)
        before, self._secure = self._secure, door
        if before is not None:
            before.stop()


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
