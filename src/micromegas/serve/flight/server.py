"""The Flight SQL service over gRPC. Turns every failure into a gRPC status with a clean text; nothing that a caller
sends may end the process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import replace

from micromegas.config import FlightSettings
from micromegas.lake import Replication
from micromegas.query.errors import QueryError
from micromegas.serve.acceptor import Share
from micromegas.serve.api_keys import presented_key
from micromegas.serve.flight.errors import FlightError, from_query_error
from micromegas.serve.flight.headers import CallOptions, read_options
from micromegas.serve.flight.health import HEALTH_SERVICE, Health, is_health_path
from micromegas.serve.flight.pace import Pace
from micromegas.serve.flight.running import RunningQueries
from micromegas.serve.flight.service import CancelElsewhere, Engine, FlightSqlService
from micromegas.serve.grpc import GrpcServer, Handler, ServerCall, StatusName
from micromegas.serve.sign_in import Identity, SignIn, SignInError
from micromegas.serve.tls import Certificate, Pair

_FLIGHT_SERVICE = "/arrow.flight.protocol.FlightService/"
_UNARY_PATHS = [_FLIGHT_SERVICE + name for name in ("GetFlightInfo", "GetSchema", "DoGet", "DoAction")]
_ANONYMOUS = "anonymous"
_STATUS_OF_SIGN_IN: dict[str, StatusName] = {
    "unauthenticated": "UNAUTHENTICATED",
    "denied": "PERMISSION_DENIED",
    "unavailable": "UNAVAILABLE",
}
_log = logging.getLogger(__name__)


class FlightServer:
    """`await FlightServer(engine, settings, version=…, clock=…).start()` listens; `port` is then the bound port."""

    def __init__(
        self,
        engine: Engine,
        settings: FlightSettings,
        version: str,
        clock: Callable[[], float],
        replication: Replication | None = None,
        *,
        cancel_elsewhere: CancelElsewhere | None = None,
        share: Share | None = None,
    ) -> None:
        """`share`: of the port, where other processes answer on it, too; `cancel_elsewhere` asks these to end a
        query."""
        self._settings = settings
        self._service = FlightSqlService(
            engine, version, clock, settings.max_message_bytes, replication, cancel_elsewhere=cancel_elsewhere
        )
        self._sign_in = SignIn(settings)
        self._health = Health()
        self._pace = Pace(time.monotonic)
        self._handlers = self._handlers_by_path()
        self._watching: asyncio.Task[None] | None = None
        self._server = GrpcServer(settings, self._handler, _UNARY_PATHS, share)

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self) -> None:
        """Binds and listens; `OSError` when the address can't be had, or the certificate can't be used."""
        certificate = Certificate.of(self._settings)
        await self._server.start(None if certificate is None else certificate.pair)
        if certificate is not None:
            self._watching = asyncio.create_task(certificate.watch(self._renewed))

    async def stop(self) -> None:
        """Refuses new calls, lets running ones finish for `drain_timeout_s`, then ends them."""
        self._health.stopping.set()
        if self._watching is not None:
            self._watching.cancel()
        await self._server.stop(self._settings.drain_timeout_s)

    async def _renewed(self, pair: Pair) -> None:
        try:
            self._server.secure(pair)
        except OSError as error:
            _log.error("%s; the one before stays in use", error)

    @property
    def running(self) -> RunningQueries:
        return self._service.running

    # The calls. Requests and answers are bytes: decoding belongs behind the error boundary.

    async def handshake(self, call: ServerCall) -> None:
        """Answers at once: some clients wait for the answer's headers before they send anything."""
        await self._identity(call)
        key = presented_key(_authorization(call))
        call.start([("authorization", f"Bearer {key or _ANONYMOUS}")])
        await call.write(b"")

    async def get_flight_info(self, call: ServerCall) -> None:
        options = await self._options(call)
        await call.write(await self._service.get_flight_info(await call.message(), options))

    async def get_schema(self, call: ServerCall) -> None:
        options = await self._options(call)
        await call.write(await self._service.get_schema(await call.message(), options))

    async def do_get(self, call: ServerCall) -> None:
        options = await self._options(call)
        try:
            await self._send_rows(await call.message(), options, call)
        except asyncio.CancelledError:
            if self.running.was_cancelled():
                # Not CANCELLED: whoever reads with pyarrow in the main thread would get a KeyboardInterrupt.
                raise FlightError("ABORTED", "the query was cancelled on request") from None
            raise

    async def do_put(self, call: ServerCall) -> None:
        options = await self._options(call)
        # closed by hand: a generator that is left to the garbage collector ends whenever it likes
        async with aclosing(call.messages()) as received:
            await call.write(await self._service.do_put(received, options))

    async def do_action(self, call: ServerCall) -> None:
        options = await self._options(call)
        for result in await self._service.do_action(await call.message(), options):
            await call.write(result)

    async def list_actions(self, call: ServerCall) -> None:
        await self._options(call)
        for action in self._service.list_actions():
            await call.write(action)

    async def not_offered(self, _call: ServerCall) -> None:
        raise FlightError("UNIMPLEMENTED", "this flight call is not offered")

    async def health_check(self, call: ServerCall) -> None:
        await call.write(self._health.answer())

    async def health_watch(self, call: ServerCall) -> None:
        """The state now, and once more when the server stops: a watcher must not hold up its end."""
        await call.write(self._health.answer())
        await self._health.stopping.wait()
        await call.write(self._health.answer())

    async def health_path(self, call: ServerCall) -> None:
        await call.write(b"")

    async def _send_rows(self, request: bytes, options: CallOptions, call: ServerCall) -> None:
        with closing(self._pace.begin()) as turn:
            async with aclosing(self._service.do_get(request, options)) as frames:
                async for frame in frames:
                    await call.write(*frame.parts)
                    if (pause_s := turn.sent(frame.size)) > 0:
                        await asyncio.sleep(pause_s)

    async def _options(self, call: ServerCall) -> CallOptions:
        """Checks who calls, then reads how they want the answer."""
        identity = await self._identity(call)
        texts = [(key, value) for key, value in call.metadata if isinstance(value, str)]
        caller = identity.caller(texts, call.peer)
        administers = self._sign_in.administers(identity)
        return replace(read_options(call.metadata), administers=administers, user=identity.user, caller=caller)

    async def _identity(self, call: ServerCall) -> Identity:
        """Who calls, who must be somebody known wherever that is asked for."""
        return await self._sign_in.identity(_authorization(call))

    def _handler(self, path: str) -> Handler | None:
        handler = self.health_path if is_health_path(path) else self._handlers.get(path)
        return None if handler is None else _translated(handler)

    def _handlers_by_path(self) -> dict[str, Handler]:
        flight: dict[str, Handler] = {
            "Handshake": self.handshake,
            "ListFlights": self.not_offered,
            "GetFlightInfo": self.get_flight_info,
            "PollFlightInfo": self.not_offered,
            "GetSchema": self.get_schema,
            "DoGet": self.do_get,
            "DoPut": self.do_put,
            "DoExchange": self.not_offered,
            "DoAction": self.do_action,
            "ListActions": self.list_actions,
        }
        health: dict[str, Handler] = {"Check": self.health_check, "Watch": self.health_watch}
        return {_FLIGHT_SERVICE + name: handler for name, handler in flight.items()} | {
            HEALTH_SERVICE + name: handler for name, handler in health.items()
        }


def _translated(handler: Handler) -> Handler:
    """What the parts behind a call raise becomes the end of the call."""

    async def translated(call: ServerCall) -> None:
        try:
            await handler(call)
        except QueryError as error:
            raise from_query_error(error) from None
        except SignInError as error:
            raise FlightError(_STATUS_OF_SIGN_IN[error.kind], error.message) from None

    return translated


def _authorization(call: ServerCall) -> str:
    """The header, the last of a repeated one."""
    found = [value for name, value in call.metadata if name == "authorization"]
    return found[-1] if found and isinstance(found[-1], str) else ""
