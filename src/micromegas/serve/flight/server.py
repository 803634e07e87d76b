"""The Flight SQL service on grpc.aio. Turns every failure into a gRPC status with a clean text; nothing that a caller
sends may end the process."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio

from micromegas.config import FlightSettings
from micromegas.lake import Replication
from micromegas.query.errors import QueryError
from micromegas.serve.api_keys import presented_key
from micromegas.serve.flight.errors import FlightError, StatusName, from_query_error
from micromegas.serve.flight.headers import CallOptions, read_options
from micromegas.serve.flight.health import HEALTH_SERVICE, Health, is_health_path
from micromegas.serve.flight.pace import Pace
from micromegas.serve.flight.running import RunningQueries
from micromegas.serve.flight.service import CancelElsewhere, Engine, FlightSqlService
from micromegas.serve.ports import require_free
from micromegas.serve.sign_in import Identity, SignIn, SignInError
from micromegas.serve.tls import tls_context

_FLIGHT_SERVICE = "/arrow.flight.protocol.FlightService/"
_ANONYMOUS = "anonymous"
_STATUS_OF_SIGN_IN: dict[str, StatusName] = {
    "unauthenticated": "UNAUTHENTICATED",
    "denied": "PERMISSION_DENIED",
    "unavailable": "UNAVAILABLE",
}
_TELLING_S = 1.0
"""How long the readers of queries that are ended may take to hear of it."""
_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


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
    ) -> None:
        """`cancel_elsewhere` asks the other processes that answer on this port to end a query."""
        self._settings = settings
        self._service = FlightSqlService(
            engine, version, clock, settings.max_message_bytes, replication, cancel_elsewhere=cancel_elsewhere
        )
        self._sign_in = SignIn(settings)
        self._health = Health()
        self._pace = Pace(time.monotonic)
        self._server: grpc.aio.Server | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Binds and listens; `OSError` when the address can't be had."""
        settings = self._settings
        if not settings.share_port:
            require_free(settings.host, settings.port)
        server = grpc.aio.server(
            options=[
                # with port sharing on, a second server on the same port would start and take half of the calls
                ("grpc.so_reuseport", int(settings.share_port)),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
            maximum_concurrent_rpcs=settings.max_calls,
        )
        server.add_generic_rpc_handlers((_Router(self),))
        address = f"{_bracketed(settings.host)}:{settings.port}"
        try:
            credentials = _credentials(settings)
            if credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, credentials)
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise OSError("the address can't be bound")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Refuses new calls, lets running ones finish for `drain_timeout_s`, then ends them."""
        self._health.stopping.set()
        if self._server is None:
            return
        drain_s = self._settings.drain_timeout_s
        stopping = asyncio.ensure_future(self._server.stop(drain_s + _TELLING_S))
        _, running = await asyncio.wait([stopping], timeout=drain_s)
        if running:
            # gRPC would cancel them without saying what to do
            self.running.end_all()
        await stopping
        self._server = None

    @property
    def running(self) -> RunningQueries:
        return self._service.running

    # The calls. Requests and answers are bytes: decoding belongs behind the error boundary.

    async def handshake(self, _requests: AsyncIterable[bytes], context: Any) -> None:
        """Answers at once: some clients wait for the answer's headers before they send anything."""
        await self._boundary(context, self._identity(context))
        key = presented_key(_authorization(context))
        await context.send_initial_metadata((("authorization", f"Bearer {key or _ANONYMOUS}"),))
        await context.write(b"")

    async def get_flight_info(self, request: bytes, context: Any) -> bytes:
        options = await self._options(context)
        return await self._boundary(context, self._service.get_flight_info(request, options))

    async def get_schema(self, request: bytes, context: Any) -> bytes:
        options = await self._options(context)
        return await self._boundary(context, self._service.get_schema(request, options))

    async def do_get(self, request: bytes, context: Any) -> None:
        options = await self._options(context)
        try:
            await self._boundary(context, self._send_rows(request, options, context))
        except asyncio.CancelledError:
            # Not CANCELLED: whoever reads with pyarrow in the main thread would get a KeyboardInterrupt.
            match self.running.why_ended():
                case "asked":
                    await context.abort(grpc.StatusCode.ABORTED, "the query was cancelled on request")
                case "stopping":
                    text = "this process of the server ends; ask again"
                    await context.abort(grpc.StatusCode.UNAVAILABLE, text)
                case None:
                    raise

    async def do_put(self, requests: AsyncIterable[bytes], context: Any) -> None:
        options = await self._options(context)
        # closed by hand: a generator that is left to the garbage collector ends whenever it likes
        async with aclosing(self._received(requests)) as received:
            await context.write(await self._boundary(context, self._service.do_put(received, options)))

    async def do_action(self, request: bytes, context: Any) -> None:
        options = await self._options(context)
        for result in await self._boundary(context, self._service.do_action(request, options)):
            await context.write(result)

    async def list_actions(self, _request: bytes, context: Any) -> None:
        await self._options(context)
        for action in self._service.list_actions():
            await context.write(action)

    async def not_offered(self, _request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this flight call is not offered")

    async def health_check(self, _request: bytes, _context: Any) -> bytes:
        return self._health.answer()

    async def health_watch(self, _request: bytes, context: Any) -> None:
        """The state now, and once more when the server stops: a watcher must not hold up its end."""
        await context.write(self._health.answer())
        await self._health.stopping.wait()
        await context.write(self._health.answer())

    async def health_path(self, _request: bytes, _context: Any) -> bytes:
        return b""

    async def _send_rows(self, request: bytes, options: CallOptions, context: Any) -> None:
        timeout = self._settings.write_timeout_s
        with closing(self._pace.begin()) as turn:
            async with aclosing(self._service.do_get(request, options)) as frames:
                async for frame in frames:
                    try:
                        # unlike `wait_for`, without a task for each frame
                        async with asyncio.timeout(timeout):
                            await context.write(frame)
                    except TimeoutError:
                        raise FlightError("DEADLINE_EXCEEDED", f"the reader took nothing for {timeout:g} s") from None
                    except Exception as error:
                        # bytes can't fail to be sent but for the reader having left before grpc noticed
                        _log.debug("reader left: %r", error)
                        return
                    if (pause_s := turn.sent(len(frame))) > 0:
                        await asyncio.sleep(pause_s)

    async def _received(self, requests: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The messages of a call; a sender that stalls ends it."""
        timeout = self._settings.read_timeout_s
        messages = aiter(requests)
        while True:
            try:
                yield await asyncio.wait_for(anext(messages), timeout)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise FlightError("DEADLINE_EXCEEDED", f"the sender sent nothing for {timeout:g} s") from None

    async def _options(self, context: Any) -> CallOptions:
        """Checks who calls, then reads how they want the answer."""

        async def read() -> CallOptions:
            headers = context.invocation_metadata() or ()
            identity = await self._identity(context)
            texts = [(key, value) for key, value in headers if isinstance(value, str)]
            caller = identity.caller(texts, _ip_of(context.peer()))
            administers = self._sign_in.administers(identity)
            return replace(read_options(headers), administers=administers, user=identity.user, caller=caller)

        return await self._boundary(context, read())

    async def _identity(self, context: Any) -> Identity:
        """Who calls, who must be somebody known wherever that is asked for."""
        return await self._sign_in.identity(_authorization(context))

    async def _boundary(self, context: Any, call: Awaitable[Answer]) -> Answer:
        """Awaits `call`; any failure of it ends the gRPC call with a status and a clean text."""
        try:
            return await call
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except FlightError as error:
            failure = error
        except QueryError as error:
            failure = from_query_error(error)
        except SignInError as error:
            failure = FlightError(_STATUS_OF_SIGN_IN[error.kind], error.message)
        # a Rust panic arrives as a BaseException that is no Exception
        except BaseException as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            reference = uuid.uuid4().hex[:12]
            _log.exception("flight sql call failed (%s)", reference)
            failure = FlightError("INTERNAL", f"internal error, see the server's log at {reference}")
        await context.abort(grpc.StatusCode[failure.status], failure.message)
        raise AssertionError("abort returned")


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Paths to calls; requests and answers stay bytes."""

    def __init__(self, server: FlightServer) -> None:
        unary_unary = grpc.unary_unary_rpc_method_handler
        unary_stream = grpc.unary_stream_rpc_method_handler
        stream_stream = grpc.stream_stream_rpc_method_handler
        self._health_path = unary_unary(server.health_path)
        self._calls = {
            f"{_FLIGHT_SERVICE}Handshake": stream_stream(server.handshake),
            f"{_FLIGHT_SERVICE}ListFlights": unary_stream(server.not_offered),
            f"{_FLIGHT_SERVICE}GetFlightInfo": unary_unary(server.get_flight_info),
            f"{_FLIGHT_SERVICE}PollFlightInfo": unary_unary(server.not_offered),
            f"{_FLIGHT_SERVICE}GetSchema": unary_unary(server.get_schema),
            f"{_FLIGHT_SERVICE}DoGet": unary_stream(server.do_get),
            f"{_FLIGHT_SERVICE}DoPut": stream_stream(server.do_put),
            f"{_FLIGHT_SERVICE}DoExchange": stream_stream(server.not_offered),
            f"{_FLIGHT_SERVICE}DoAction": unary_stream(server.do_action),
            f"{_FLIGHT_SERVICE}ListActions": unary_stream(server.list_actions),
            f"{HEALTH_SERVICE}Check": unary_unary(server.health_check),
            f"{HEALTH_SERVICE}Watch": unary_stream(server.health_watch),
        }

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        if is_health_path(path):
            return self._health_path
        return self._calls.get(path)


async def _returns(function: Callable[[], Answer]) -> Answer:
    return function()


def _credentials(settings: FlightSettings) -> Any:
    """What gRPC needs for TLS, None without; `OSError` for files that don't fit, of which gRPC itself says nothing."""
    if tls_context(settings) is None or settings.tls_certificate is None or settings.tls_key is None:
        return None
    return grpc.ssl_server_credentials([(settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())])


def _authorization(context: Any) -> str:
    """The header, the last of a repeated one."""
    found = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    return found[-1] if found and isinstance(found[-1], str) else ""


def _ip_of(peer: str) -> str:
    """Of a gRPC peer: `ipv4:127.0.0.1:1234`, `ipv6:%5B::1%5D:1234`."""
    address = unquote(peer).partition(":")[2].rpartition(":")[0]
    return address.strip("[]") or "unknown"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
