"""A gRPC server on the event loop: `micromegas._transport` moves the bytes, whoever is given answers the calls."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable

from micromegas._transport import Call, Transport
from micromegas.config import FlightSettings
from micromegas.serve.acceptor import Acceptor, Share
from micromegas.serve.grpc.call import ServerCall
from micromegas.serve.grpc.status import CallError
from micromegas.serve.tls import Pair

Handler = Callable[[ServerCall], Awaitable[None]]

_LOOKS = 4
"""Looks per shortest time limit after which a connection or call is given up."""
_LONGEST_LOOK_S = 5.0
_TELLING_S = 1.0
"""How long those whose calls are ended at a stop may take to hear of it."""
_log = logging.getLogger(__name__)


class GrpcServer:
    """`await server.start()` listens on the address of its settings; `port` is then the bound port."""

    def __init__(
        self,
        settings: FlightSettings,
        handler: Callable[[str], Handler | None],
        unary_paths: Iterable[str],
        share: Share | None = None,
    ) -> None:
        """`handler` names who answers calls of a path. Those of `unary_paths` carry one message and begin when it is
        here; all others begin at once. `share`: of the port, where other processes have it, too."""
        self._settings = settings
        self._share = share
        self._acceptor: Acceptor | None = None
        self._handler = handler
        self._unary_paths = list(unary_paths)
        self._calls: dict[int, ServerCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_flushing = False
        self._is_idle: asyncio.Event | None = None
        self._transport: Transport | None = None
        self._looking: asyncio.TimerHandle | None = None
        self.port = settings.port

    async def start(self, pair: Pair | None = None) -> None:
        """Binds and listens, with TLS where there is a certificate; `OSError` when the address can't be had, or the
        certificate is none for TLS."""
        settings = self._settings
        self._acceptor = Acceptor(settings.host, settings.port, self._share, self._take)
        self.port = self._acceptor.port
        self._transport = transport = Transport(
            unary_paths=self._unary_paths,
            max_message_bytes=settings.max_message_bytes,
            max_calls=settings.max_calls,
            patience_s=settings.read_timeout_s,
            keepalive_s=settings.keepalive_s,
            keepalive_patience_s=settings.keepalive_patience_s,
        )
        if pair is not None:
            try:
                self.secure(pair)
            except OSError:
                self._acceptor.stop()
                self._transport = None
                raise
        self._loop = asyncio.get_running_loop()
        self._acceptor.start()
        self._loop.add_reader(transport.fileno(), self._drive, True)
        limits = (settings.keepalive_s, settings.keepalive_patience_s, settings.read_timeout_s)
        self._look_s = min(_LONGEST_LOOK_S, min(limits) / _LOOKS)
        self._looking = self._loop.call_later(self._look_s, self._look)

    def secure(self, pair: Pair) -> None:
        """Connections that come from now on speak TLS with this certificate. `OSError` where it is none for that; then
        everything stays as it is."""
        if self._transport is None:
            return
        try:
            self._transport.secure(pair.chain, pair.key)
        except ValueError as error:
            raise OSError(f"the certificate can't be used for TLS: {error}") from None

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets running ones finish for `grace_s`, then ends them."""
        if self._transport is None:
            return
        if self._acceptor is not None:
            self._acceptor.stop()
        self._transport.stop()
        self._flush_soon()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for call in list(self._calls.values()):
            call.end_for(CallError("UNAVAILABLE", "this process of the server ends; ask again"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_TELLING_S)
        await self._all_sent()
        if self._looking is not None:
            self._looking.cancel()
        self._loop.remove_reader(self._transport.fileno())
        transport, self._transport = self._transport, None
        self._told(transport.close())

    def _take(self, connection: socket.socket) -> None:
        if self._transport is not None:
            self._transport.add(connection.detach())
            self._count()
            self._flush_soon()

    def _count(self) -> None:
        if self._share is not None and self._acceptor is not None and self._transport is not None:
            self._acceptor.count(self._transport.connections)

    async def _all_sent(self) -> None:
        self._is_idle = is_idle = asyncio.Event()
        self._flush_soon()
        try:
            async with asyncio.timeout(_TELLING_S):
                await is_idle.wait()
        except TimeoutError:
            _log.debug("somebody doesn't read the last answers")

    def _flush_soon(self) -> None:
        """Once for all that is written until the event loop comes to it."""
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self._send()

    def _send(self) -> None:
        self._drive(False)

    def _drive(self, asks: bool) -> None:
        if self._transport is not None:
            self._told(self._transport.drive(asks))
            # looks at every connection, so only where somebody waits for it
            if self._is_idle is not None and self._transport.is_idle:
                self._is_idle.set()

    def _look(self) -> None:
        self._looking = self._loop.call_later(self._look_s, self._look)
        if self._transport is not None:
            self._told(self._transport.look())

    def _told(self, driven: tuple[list[Call], list[int], bool]) -> None:
        begun, moved, is_left = driven
        for call in begun:
            self._begin(ServerCall(call, self._settings, self._flush_soon, self._send), call.number)
        for number in moved:
            if (known := self._calls.get(number)) is not None:
                known.moved()
        self._count()
        if is_left:
            self._flush_soon()

    def _begin(self, call: ServerCall, number: int) -> None:
        task = self._loop.create_task(self._answer(call))
        call.begin(task)
        self._calls[number] = call
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            del self._calls[number]

        task.add_done_callback(ended)

    async def _answer(self, call: ServerCall) -> None:
        """Whatever happens, the call ends with a status."""
        failure: CallError | None = None
        try:
            await self._handled(call)
        except CallError as error:
            failure = error
        except asyncio.CancelledError:
            failure = call.ended_for or CallError("UNAVAILABLE", "the call was ended; ask again")
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        # a Rust panic arrives as a BaseException that is no Exception
        except BaseException:
            reference = uuid.uuid4().hex[:12]
            _log.exception("a call of %s failed (%s)", call.path, reference)
            failure = CallError("INTERNAL", f"internal error, see the server's log at {reference}")
        await call.finish(failure)

    async def _handled(self, call: ServerCall) -> None:
        timeout_s = call.timeout_s()
        handler = self._handler(call.path)
        if handler is None:
            raise CallError("UNIMPLEMENTED", f"{call.path[:200]} is not offered")
        if timeout_s is None:
            return await handler(call)
        late = CallError("DEADLINE_EXCEEDED", f"the call took longer than the {timeout_s:g} s that it was given")
        timer = self._loop.call_later(timeout_s, call.end_for, late)
        try:
            return await handler(call)
        finally:
            timer.cancel()
