"""The native endpoints as a raw RSGI handler: per request, a web framework would cost more than the work itself.

It must never let a body grow past its limit in memory, and never show a client more of a fault than its name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Protocol

from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from micromegas.config import IngestSettings
from micromegas.ingest.authentication import KeyRing
from micromegas.ingest.group_commit import GroupCommit, Item, ItemRefused, QueueFull
from micromegas.ingest.readiness import Readiness
from micromegas.wire import READABLE_FORMATS, BatchSink, Block, Process, SinkUnavailable, Stream, WireError

READ_WHOLE_BYTES = 64 * 1024
"""Bodies up to this announced size are read in one go; longer ones are counted while they come in."""

PARSE_IN_THREAD_BYTES = 1024 * 1024
"""From this size on parsing takes milliseconds, in which the event loop would serve nobody."""

RESERVED_PREFIX = "micromegas."
"""Properties of this prefix are the service's own to set: no sender may."""

TEXT = [("content-type", "text/plain; charset=utf-8")]
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
    def response_str(self, status: int, headers: list[tuple[str, str]], body: str) -> None: ...


class _Answer(Exception):
    """An answer other than success; ends the handling of the request."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


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

ANSWER_HEADERS = {"/ingestion/insert_process": [(FORMATS_HEADER, ", ".join(READABLE_FORMATS))]}

DECODERS: dict[str, Callable[[bytes], Item]] = {
    "/ingestion/insert_process": _decode_process,
    "/ingestion/insert_stream": _decode_stream,
    "/ingestion/insert_block": Block.decode,
}


class IngestApp:
    """RSGI application of the ingestion service.

    `sink` takes the batches, `readiness` is a blocking check that raises while a store does not answer. Answers:
    200 durable · 400 a body that can never be good · 401 · 404 · 405 · 413 · 500 the sink failed on this item ·
    503 (with `Retry-After`) everything that passes: full queue, store away, shutting down.
    """

    def __init__(self, sink: BatchSink, settings: IngestSettings, readiness: Callable[[], None]) -> None:
        self._settings = settings
        self._keys = KeyRing(settings.api_keys)
        self._group_commit = GroupCommit(sink, settings)
        self._readiness = Readiness(readiness, settings.ready_timeout_s, settings.ready_cache_s)
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
        try:
            decode = DECODERS.get(scope.path)
            if decode is None:
                await self._answer_probe(scope)
            else:
                await self._insert(scope, exchange, decode)
        except _Answer as answer:
            body = "" if scope.method == "HEAD" else answer.text
            exchange.response_str(answer.status, [*TEXT, *answer.headers], body)
        except Exception:
            logger.exception("request to %s failed", scope.path)
            exchange.response_str(500, TEXT, "internal error")
        else:
            exchange.response_empty(200, ANSWER_HEADERS.get(scope.path, []))

    async def _answer_probe(self, scope: Scope) -> None:
        if scope.path not in ("/health", "/ready"):
            raise _Answer(404, "no such path")
        if scope.method not in ("GET", "HEAD"):
            raise _Answer(405, "only GET and HEAD are allowed here", ("allow", "GET, HEAD"))
        if scope.path == "/ready" and (self._is_draining or not await self._readiness.is_ready()):
            raise self._busy("not ready")

    async def _insert(self, scope: Scope, exchange: Exchange, decode: Callable[[bytes], Item]) -> None:
        if scope.method != "POST":
            raise _Answer(405, "only POST is allowed here", ("allow", "POST"))
        if not self._keys.accepts(scope.headers.get("authorization")):
            raise _Answer(401, "Invalid token", ("www-authenticate", "Bearer"))
        if self._is_draining:
            raise self._busy("shutting down")
        reserved = 0
        try:
            length = int(scope.headers.get("content-length", -1))
            if length > self._settings.max_body_bytes:
                raise self._too_large()
            async with asyncio.timeout(self._settings.body_timeout_s):
                if 0 <= length <= READ_WHOLE_BYTES:
                    body = await exchange()
                    self._group_commit.reserve(len(body))
                    reserved = len(body)
                else:
                    # What is reserved is what has come, not what was announced: a claim costs a sender nothing.
                    chunks = []
                    async for chunk in exchange:
                        if reserved + len(chunk) > self._settings.max_body_bytes:
                            raise self._too_large()
                        self._group_commit.reserve(len(chunk))
                        reserved += len(chunk)
                        chunks.append(bytes(chunk))
                    body = b"".join(chunks)
                    del chunks
            if len(body) >= PARSE_IN_THREAD_BYTES:
                item = await asyncio.to_thread(decode, body)
            else:
                item = decode(body)
            del body
            await self._group_commit.commit(item, reserved)
        except WireError as error:
            raise _Answer(400, str(error)) from None
        except (ProtocolClosed, ProtocolError):
            raise self._busy("the body ended early") from None
        except TimeoutError:
            raise self._busy("the body did not arrive in time") from None
        except QueueFull:
            raise self._busy("the queue is full") from None
        except SinkUnavailable:
            raise self._busy("storage does not answer") from None
        except ItemRefused:
            raise _Answer(500, "storage failed on this item") from None
        finally:
            self._group_commit.release(reserved)

    def _too_large(self) -> _Answer:
        return _Answer(413, f"the body is longer than {self._settings.max_body_bytes} bytes")

    def _busy(self, text: str) -> _Answer:
        return _Answer(503, text, ("retry-after", str(self._settings.retry_after_s)))
