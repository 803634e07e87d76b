"""The endpoints of OTLP over HTTP: what their requests say about themselves, and their bodies as batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from micromegas.config import IngestSettings
from micromegas.ingest.answers import JSON_TYPE, PROTOBUF_TYPE, Answer, OtlpAnswers
from micromegas.ingest.gunzip import Gunzip
from micromegas.ingest.otlp import otlp_batch
from micromegas.wire import Batch
from micromegas.wire.otlp import Signal, decode_otlp

ROUTES: dict[str, Signal] = {
    "/ingestion/otlp/v1/logs": "logs",
    "/ingestion/otlp/v1/metrics": "metrics",
    "/ingestion/otlp/v1/traces": "traces",
}

IN_THREAD_BYTES = 1024 * 1024
"""From this size on a body takes milliseconds, in which the event loop would serve nobody."""


class HeaderValues(Protocol):
    """Request headers by lower-case name."""

    def get(self, key: str, default: None = None) -> str | None: ...


@dataclass(frozen=True, slots=True)
class OtlpEncoding:
    """How a request is written."""

    is_json: bool
    is_gzip: bool

    @staticmethod
    def of(headers: HeaderValues) -> OtlpEncoding:
        """Raises `Answer` 415 for an encoding that is none of OTLP's."""
        content_type = (headers.get("content-type") or "").partition(";")[0].strip().lower()
        if content_type not in (JSON_TYPE, PROTOBUF_TYPE):
            raise Answer(415, f"the content type is neither {PROTOBUF_TYPE} nor {JSON_TYPE}")
        content_encoding = (headers.get("content-encoding") or "identity").strip().lower()
        if content_encoding not in ("gzip", "identity"):
            raise Answer(415, "the content encoding is neither gzip nor identity")
        return OtlpEncoding(content_type == JSON_TYPE, content_encoding == "gzip")


def answers_to(headers: HeaderValues) -> OtlpAnswers:
    """How the sender of a request wants to be answered; protobuf when that can't be told."""
    try:
        return OtlpAnswers(is_json=OtlpEncoding.of(headers).is_json)
    except Answer:
        return OtlpAnswers(is_json=False)


class OtlpBodies:
    """Bodies into batches. A gzip body that becomes long is not counted among what waits, as nobody knows its length
    before: such bodies are inflated, cut and committed one at a time."""

    def __init__(self, settings: IngestSettings) -> None:
        self._max_bytes = settings.otlp_max_inflated_bytes
        self._one_long = asyncio.Lock()

    @asynccontextmanager
    async def batch(
        self, signal: Signal, encoding: OtlpEncoding, body: bytes, count: Callable[[int], None]
    ) -> AsyncIterator[Batch]:
        """The batch of a body, to be committed within the block. `count` is told the bytes that inflating added.

        Raises `WireError` for a body that can never be good, `Answer` 413 for one that is too long inside.
        """

        def cut(content: bytes) -> Batch:
            resources = decode_otlp(signal, content, is_json=encoding.is_json, max_bytes=self._max_bytes)
            return otlp_batch(signal, resources, time.time_ns)

        if not encoding.is_gzip:
            yield await asyncio.to_thread(cut, body) if len(body) >= IN_THREAD_BYTES else cut(body)
            return
        gunzip = Gunzip(body)
        content = gunzip.inflate(min(IN_THREAD_BYTES, self._max_bytes))
        if content is not None:
            count(len(content))
            yield cut(content)
            return

        def inflate_and_cut() -> Batch:
            content = gunzip.inflate(self._max_bytes)
            if content is None:
                raise Answer(413, f"the body is longer than {self._max_bytes} bytes after decompression")
            return cut(content)

        async with self._one_long:
            yield await asyncio.to_thread(inflate_and_cut)
