"""The ASGI application: routes, sign-in, and the boundary at which every failure becomes a status and a clean text.

Contains no query logic. An answer that breaks off ends with its connection: readers must never take it for a whole one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs

import pyarrow as pa

from micromegas.config import HttpSettings
from micromegas.query import QueryError, QueryRequest, QueryStream
from micromegas.serve.audit import Caller, QueryAudit
from micromegas.serve.edge_types import EdgeConverter
from micromegas.serve.http.answer_formats import JSON, AnswerFormat, Buffer, format_for
from micromegas.serve.http.encodings import LEAST_BYTES, encoding_for
from micromegas.serve.http.host_check import is_known_host
from micromegas.serve.http.problem import Header, Problem, invalid
from micromegas.serve.http.query_body import read_gateway_query, read_query
from micromegas.serve.http.trace import TraceFile
from micromegas.serve.sign_in import Identity, SignIn, SignInError

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """What is needed of `micromegas.query.engine.QueryEngine`."""

    async def execute(self, request: QueryRequest) -> QueryStream: ...


_STATUS_OF_SIGN_IN = {"unauthenticated": 401, "denied": 403, "unavailable": 503}


@dataclass(frozen=True, slots=True)
class _Asking:
    """Whose request it is: for the audit, for the rules of who may ask what, and whether they administer."""

    caller: Caller
    user: str
    administers: bool


class _Gone(Exception):
    """The caller has left: nobody waits for an answer."""


class QueryApi:
    """`POST /api/query`, `GET /api/perfetto/{process}`, `GET /health`, and what the original's HTTP gateway has:
    `POST /gateway/query`, `GET /gateway/health`. `clock` gives ns since the epoch."""

    def __init__(self, engine: Engine, settings: HttpSettings, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._sign_in = SignIn(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send, self._settings)
        try:
            await self._answer(exchange)
        except _Gone:
            await exchange.abort()
        except Problem as problem:
            await exchange.refuse(problem)
        except QueryError as error:
            await exchange.refuse(Problem.of_query(error))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        # a Rust panic arrives as a BaseException that is no Exception
        except BaseException:
            reference = uuid.uuid4().hex[:12]
            _log.exception("http request failed (%s)", reference)
            await exchange.refuse(Problem(500, "internal", f"internal error, see the server's log at {reference}"))

    async def _answer(self, exchange: _Exchange) -> None:
        path = exchange.path
        if not self._sign_in.is_asked_for:
            exchange.require_known_host()
        if path == "/health":
            exchange.require("GET", "HEAD")
            await exchange.send_whole(b"", "text/plain")
        elif path == "/gateway/health":
            exchange.require("GET", "HEAD")
            now = datetime.fromtimestamp(self._clock() / 1e9, UTC).isoformat()
            await exchange.send_whole(json.dumps({"status": "healthy", "timestamp": now}).encode(), JSON.media_type)
        elif path == "/api/query":
            exchange.require("POST")
            asking = await self._signed_in(exchange)
            form = format_for(exchange.listed("accept"))
            request = read_query(await exchange.json_body(), self._clock())
            await self._send_rows(exchange, asking, request, form)
        elif path == "/gateway/query":
            exchange.is_gateway = True
            exchange.require("POST")
            asking = await self._signed_in(exchange)
            await self._send_rows(exchange, asking, read_gateway_query(await exchange.json_body()), JSON)
        elif path.startswith("/api/perfetto/"):
            exchange.require("GET")
            asking = await self._signed_in(exchange)
            trace = TraceFile.of(path.removeprefix("/api/perfetto/"), exchange.parameters(), self._clock())
            await self._send_trace(exchange, asking, trace)
        else:
            raise Problem(404, "not_found", "no such path: there are /api/query, /api/perfetto/PROCESS and /health")

    async def _signed_in(self, exchange: _Exchange) -> _Asking:
        """Who asks; a `Problem` for who may not."""
        try:
            identity = await self._sign_in.identity(exchange.header("authorization") or "")
            caller = exchange.caller(identity)
        except SignInError as error:
            status = _STATUS_OF_SIGN_IN[error.kind]
            headers = [(b"www-authenticate", b"Bearer")] if status == 401 else []
            raise Problem(status, error.kind, error.message, *headers) from None
        return _Asking(caller, identity.user, self._sign_in.administers(identity))

    def _rows(self, asking: _Asking, request: QueryRequest) -> _Rows:
        """The rows of a request, on its caller's behalf."""
        caller = asking.caller
        request = replace(request, administers=asking.administers, user=asking.user, client=caller.client)
        return _Rows(self._engine, request, caller)

    async def _send_rows(self, exchange: _Exchange, asking: _Asking, request: QueryRequest, form: AnswerFormat) -> None:
        await exchange.send_pieces(self._rows(asking, request).written(form), form.media_type)

    async def _send_trace(self, exchange: _Exchange, asking: _Asking, trace: TraceFile) -> None:
        name = f'attachment; filename="{trace.process_id}.perfetto-trace"'
        chunks = self._rows(asking, trace.request()).joined("chunk_data")
        await exchange.send_pieces(chunks, "application/octet-stream", (b"content-disposition", name.encode()))


class _Rows:
    """The rows of one query as bytes, and the line of the audit about it."""

    def __init__(self, engine: Engine, request: QueryRequest, caller: Caller) -> None:
        self._engine = engine
        self._request = request
        self._audit = QueryAudit(caller, request.sql, request.begin, request.end, request.limit)

    async def written(self, form: AnswerFormat) -> AsyncGenerator[bytes, None]:
        """In an answer's form, as they come."""
        with self._audit.told():
            stream = await self._begun()
            try:
                converter = EdgeConverter(stream.schema, preserve_dictionary=False)
                buffer = Buffer()
                writer = form.writer(buffer, converter.schema)
                async for batch in stream:
                    for part in converter.convert(batch):
                        # takes milliseconds, in which the event loop would serve nobody
                        await asyncio.to_thread(writer.write, part)
                        yield self._sent(buffer.take(), part.num_rows)
                writer.close()
                yield self._sent(buffer.take(), 0)
            except pa.ArrowException as error:
                raise QueryError("invalid", f"the result can't be sent: {error}") from None
            finally:
                await stream.aclose()

    async def joined(self, column: str) -> AsyncGenerator[bytes, None]:
        """The values of a column of bytes, one after the other."""
        with self._audit.told():
            stream = await self._begun()
            try:
                async for batch in stream:
                    for value in batch.column(column):
                        yield self._sent(value.as_py(), 1)
            finally:
                await stream.aclose()

    async def _begun(self) -> QueryStream:
        stream = await self._engine.execute(self._request)
        self._audit.planned()
        return stream

    def _sent(self, data: bytes, rows: int) -> bytes:
        self._audit.rows += rows
        self._audit.bytes_sent += len(data)
        return data


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: HttpSettings) -> None:
        self.path: str = scope["path"]
        self.is_gateway = False
        """Whether errors are told as the original's gateway does: as plain text."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._settings = settings
        self._has_begun = False
        # of a repeated header the last counts
        self._headers = dict(scope["headers"])

    def caller(self, identity: Identity) -> Caller:
        """Who asks, and what the headers say of them."""
        texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers.items()]
        found = identity.caller(texts, self._scope["client"][0] if self._scope["client"] else "unknown")
        return found if b"x-client-type" in self._headers else replace(found, client="http")

    def header(self, name: str) -> str | None:
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def listed(self, name: str) -> str | None:
        """A header that is a list, which may be told in several."""
        values = [value.decode("latin-1") for key, value in self._scope["headers"] if key == name.encode()]
        return ", ".join(values) if values else None

    def parameters(self) -> dict[str, str]:
        """Parameters of the query string; a `Problem` for one that is given twice."""
        given = parse_qs(self._scope["query_string"].decode("latin-1"), keep_blank_values=True)
        for name, values in given.items():
            if len(values) > 1:
                raise invalid(f"{name[:100]} is given {len(values)} times")
        return {name: values[0] for name, values in given.items()}

    def require(self, *methods: str) -> None:
        """A `Problem` unless the request's method is one of these."""
        if self._scope["method"] not in methods:
            allowed = ", ".join(methods)
            raise Problem(405, "method", f"only {allowed} is allowed here", (b"allow", allowed.encode()))

    def require_known_host(self) -> None:
        """A `Problem` for a name of this server that a stranger may have given to it. Browsers always tell one."""
        host = self.header("host")
        if host is not None and not is_known_host(host, self._settings.host_names):
            text = f"host {host[:300]!r} is not known to be this server's: start it with --allow-host, or with api keys"
            raise Problem(421, "misdirected", text)

    async def json_body(self) -> bytes:
        """The whole body, which must say that it is JSON: pages of other sites can't send that from a browser without
        being allowed to, and nobody allows them."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "media_type", "the body must be JSON: content-type: application/json")
        if (self.header("content-encoding") or "identity").strip().lower() != "identity":
            plain = (b"accept-encoding", b"identity")
            raise Problem(415, "media_type", "the body must not be compressed: leave content-encoding out", plain)
        limit = self._settings.max_body_bytes
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise Problem(413, "too_large", f"the body is longer than {limit} bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Problem(408, "timeout", "the body did not arrive in time", (b"connection", b"close")) from None

    async def send_whole(self, body: bytes, media_type: str, *headers: Header, status: int = 200) -> None:
        """An answer of known length."""
        await self._start(status, media_type, (b"content-length", str(len(body)).encode()), *headers)
        await self._write(body, more=False)

    async def send_pieces(self, pieces: AsyncGenerator[bytes, None], media_type: str, *headers: Header) -> None:
        """An answer in pieces as they come; in one, with its length, when it isn't long. Ends the pieces early when the
        caller leaves."""
        work = asyncio.ensure_future(self._send_pieces(pieces, media_type, *headers))
        leaving = asyncio.ensure_future(self._until_disconnected())
        try:
            await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _Gone
            work.result()
        finally:
            for task in (work, leaving):
                task.cancel()
            await asyncio.wait([work, leaving])

    async def refuse(self, problem: Problem) -> None:
        """The problem as an answer; where one has begun, all that can be told is that it broke off."""
        if self._has_begun:
            _log.warning("an answer of %s broke off: %s", self.path, problem.message)
            await self.abort()
            return
        if self.is_gateway:
            body, kind = problem.message.encode("utf-8", "replace"), "text/plain; charset=utf-8"
        else:
            text = json.dumps({"code": problem.code, "message": problem.message}, ensure_ascii=False)
            body, kind = text.encode("utf-8", "replace"), JSON.media_type
        with suppress(_Gone):
            await self.send_whole(body, kind, *problem.headers, status=problem.status)

    async def abort(self) -> None:
        """Ends the connection, whatever was still to be sent."""
        self._scope["state"]["transport"].abort()
        await self._until_disconnected()

    async def _send_pieces(self, pieces: AsyncGenerator[bytes, None], media_type: str, *headers: Header) -> None:
        held = bytearray()
        encoding = encoding_for(self.listed("accept-encoding"))
        encoder = encoding.encoder()
        async with aclosing(pieces):
            async for piece in pieces:
                if self._has_begun:
                    await self._write(await asyncio.to_thread(encoder.encode, piece), more=True)
                    continue
                held += piece
                if len(held) > self._settings.whole_bytes:
                    await self._start(200, media_type, *encoding.headers(), *headers)
                    await self._write(await asyncio.to_thread(encoder.encode, bytes(held)), more=True)
                    held.clear()
        if self._has_begun:
            await self._write(encoder.end(), more=False)
        elif len(held) < LEAST_BYTES:
            await self.send_whole(bytes(held), media_type, *headers)
        else:
            whole = await asyncio.to_thread(encoder.encode, bytes(held)) + encoder.end()
            await self.send_whole(whole, media_type, *encoding.headers(), *headers)

    async def _start(self, status: int, media_type: str, *headers: Header) -> None:
        self._has_begun = True
        fixed = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})

    async def _write(self, body: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            _log.warning("a reader of %s took nothing for %g s", self.path, self._settings.write_timeout_s)
            raise _Gone from None

    async def _until_disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
