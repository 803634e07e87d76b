"""The endpoints as a raw RSGI handler: per request, a web framework would cost more than the work itself.

It must never let a body grow past its limit in memory, and never show a client more of a fault than its name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from micromegas.config import IngestSettings
from micromegas.ingest.answers import Answer, AnswerWriter, PlainAnswers
from micromegas.ingest.authentication import AdmissionUnknown, KeyRing, TokenCheck
from micromegas.ingest.group_commit import GroupCommit, Item, ItemRefused, QueueFull
from micromegas.ingest.otlp_endpoint import ROUTES, OtlpBodies, OtlpEncoding, answers_to
from micromegas.ingest.readiness import Readiness
from micromegas.wire import NATIVE_FORMATS, BatchSink, Block, Process, SinkUnavailable, Stream, WireError
from micromegas.wire.otlp import Signal

READ_WHOLE_BYTES = 64 * 1024
"""Bodies up to this announced size are read in one go; longer ones are counted while they come in."""

PARSE_IN_THREAD_BYTES = 1024 * 1024
"""From this size on parsing takes milliseconds, in which the event loop would serve nobody."""

RESERVED_PREFIX = "micromegas."
"""Properties of this prefix are the service's own to set: no sender may."""

logger = logging.getLogger(__name__)


class Headers(Protocol):
    """Request headers by lower-case name."""

    def get(self, key: str, default: Any = None) -> Any: ...


class Scope(Protocol):
    """What RSGI tells about a request."""

    proto: str
    method: str
    path: str

    @property
    def headers(self) -> Headers: ...


class Exchange(Protocol):
    """RSGI's handle on a request's body and its answer."""

    async def __call__(self) -> bytes: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class _Held:
    """The bytes that a request holds of the queue's bound. Context manager: gives them back."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self._group_commit = group_commit
        self.size = 0

    def add(self, size: int) -> None:
        """Count bytes that are kept from now on; raises `QueueFull`."""
        self._group_commit.reserve(size)
        self.size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group_commit.release(self.size)


def _decode_process(body: bytes) -> Process:
    process = Process.decode(body)
    return replace(process, properties=_own_properties(process.properties))


def _decode_stream(body: bytes) -> Stream:
    stream = Stream.decode(body)
    return replace(stream, properties=_own_properties(stream.properties))


def _own_properties(properties: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in properties.items() if not key.startswith(RESERVED_PREFIX)}


FORMATS_HEADER = "micromegas-stream-formats"
"""Tells a sender which encodings of blocks it may choose from. Servers that don't say it read `micromegas-transit`."""

PLAIN = PlainAnswers()
ANSWERS = {"/ingestion/insert_process": PlainAnswers((FORMATS_HEADER, ", ".join(NATIVE_FORMATS)))}

DECODERS: dict[str, Callable[[bytes], Item]] = {
    "/ingestion/insert_process": _decode_process,
    "/ingestion/insert_stream": _decode_stream,
    "/ingestion/insert_block": Block.decode,
}


class IngestApp:
    """RSGI application of the ingestion service.

    `sink` takes the batches, `readiness` is a blocking check that raises while a store does not answer, `tokens` checks
    tokens of identity providers. Answers:
    200 durable · 400 a body that can never be good · 401 · 404 · 405 · 413 · 500 the sink failed on this item ·
    503 (with `Retry-After`) everything that passes: full queue, store or identity provider away, shutting down. For
    OTLP also 415, an encoding that is not read.
    """

    def __init__(
        self,
        sink: BatchSink,
        settings: IngestSettings,
        readiness: Callable[[], None],
        tokens: TokenCheck | None = None,
    ) -> None:
        self._settings = settings
        self._keys = KeyRing(settings.api_keys, tokens)
        self._group_commit = GroupCommit(sink, settings)
        self._readiness = Readiness(readiness, settings.ready_timeout_s, settings.ready_cache_s)
        self._otlp_bodies = OtlpBodies(settings)
        self._is_draining = False

    async def drain(self) -> None:
        """Refuse new work from now on and wait until what was taken is durable."""
        self._is_draining = True
        await self._group_commit.drain()

    @property
    def is_idle(self) -> bool:
        """Nothing that was taken is still to be made durable."""
        return self._group_commit.is_empty

    def close(self) -> None:
        """Give the threads back, after `drain`."""
        self._group_commit.close()
        self._readiness.close()

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        signal = ROUTES.get(scope.path)
        answers: AnswerWriter = ANSWERS.get(scope.path, PLAIN) if signal is None else answers_to(scope.headers)
        try:
            if signal is not None:
                await self._insert_otlp(scope, exchange, signal)
            elif (decode := DECODERS.get(scope.path)) is not None:
                await self._insert(scope, exchange, decode)
            else:
                await self._answer_probe(scope)
        except Answer as answer:
            status = answer.status
            headers, body = answers.refusal(status, answer.text)
            headers = [*headers, *answer.headers]
        except Exception:
            logger.exception("request to %s failed", scope.path)
            status = 500
            headers, body = answers.refusal(status, "internal error")
        else:
            status = 200
            headers, body = answers.success()
        if body and scope.method != "HEAD":
            exchange.response_bytes(status, headers, body)
        else:
            exchange.response_empty(status, headers)

    async def _answer_probe(self, scope: Scope) -> None:
        if scope.path not in ("/health", "/ready"):
            raise Answer(404, "no such path")
        if scope.method not in ("GET", "HEAD"):
            raise Answer(405, "only GET and HEAD are allowed here", ("allow", "GET, HEAD"))
        if scope.path == "/ready" and (self._is_draining or not await self._readiness.is_ready()):
            raise self._busy("not ready")

    async def _insert(self, scope: Scope, exchange: Exchange, decode: Callable[[bytes], Item]) -> None:
        await self._admit(scope)
        with _Held(self._group_commit) as held:
            body = await self._body(scope, exchange, self._settings.max_body_bytes, held)
            try:
                item = await asyncio.to_thread(decode, body) if len(body) >= PARSE_IN_THREAD_BYTES else decode(body)
            except WireError as error:
                raise Answer(400, str(error)) from None
            del body
            await self._commit(item, held, self._settings.retry_after_s)

    async def _insert_otlp(self, scope: Scope, exchange: Exchange, signal: Signal) -> None:
        await self._admit(scope)
        encoding = OtlpEncoding.of(scope.headers)
        limit = min(self._settings.otlp_max_body_bytes, self._settings.max_body_bytes)
        with _Held(self._group_commit) as held:
            body = await self._body(scope, exchange, limit, held)
            try:
                async with self._otlp_bodies.batch(signal, encoding, body, held.add) as batch:
                    del body
                    await self._commit(batch, held, self._settings.otlp_retry_after_s)
            except WireError as error:
                raise Answer(400, str(error)) from None
            except QueueFull:
                raise self._busy("the queue is full") from None

    async def _admit(self, scope: Scope) -> None:
        """Raises `Answer` unless the request may send something now."""
        if scope.method != "POST":
            raise Answer(405, "only POST is allowed here", ("allow", "POST"))
        try:
            is_known = await self._keys.accepts(scope.headers.get("authorization"))
        except AdmissionUnknown:
            raise self._busy("Auth provider unavailable") from None
        if not is_known:
            raise Answer(401, "Invalid token", ("www-authenticate", "Bearer"))
        if self._is_draining:
            raise self._busy("shutting down")

    async def _body(self, scope: Scope, exchange: Exchange, limit: int, held: _Held) -> bytes:
        """The whole body, counted in `held`; raises `Answer`."""
        try:
            length = int(scope.headers.get("content-length", -1))
            if length > limit:
                raise _too_large(limit)
            async with asyncio.timeout(self._settings.body_timeout_s):
                if 0 <= length <= READ_WHOLE_BYTES:
                    body = await exchange()
                    held.add(len(body))
                    return body
                # What is reserved is what has come, not what was announced: a claim costs a sender nothing.
                chunks = []
                async for chunk in exchange:
                    if held.size + len(chunk) > limit:
                        raise _too_large(limit)
                    held.add(len(chunk))
                    chunks.append(bytes(chunk))
                return b"".join(chunks)
        except (ProtocolClosed, ProtocolError):
            raise self._busy("the body ended early") from None
        except TimeoutError:
            raise self._busy("the body did not arrive in time") from None
        except QueueFull:
            raise self._busy("the queue is full") from None

    async def _commit(self, item: Item, held: _Held, storage_retry_s: int) -> None:
        """Return when the item is durable; raises `Answer`."""
        try:
            await self._group_commit.commit(item, held.size)
        except QueueFull:
            raise self._busy("the queue is full") from None
        except SinkUnavailable:
            raise self._busy("storage does not answer", storage_retry_s) from None
        except ItemRefused:
            raise Answer(500, "storage failed on this item") from None

    def _busy(self, text: str, retry_after_s: int | None = None) -> Answer:
        seconds = self._settings.retry_after_s if retry_after_s is None else retry_after_s
        return Answer(503, text, ("retry-after", str(seconds)))


def _too_large(limit: int) -> Answer:
    return Answer(413, f"the body is longer than {limit} bytes")
