"""Compression of answers, as their readers ask for it in `accept-encoding`. What was given to it can be read on the
other side at once: rows arrive as they come."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from micromegas.serve.http.accepted import accepted
from micromegas.serve.http.answer_formats import Buffer
from micromegas.serve.http.problem import Header

LEAST_BYTES = 1024
"""Shorter answers are not worth it."""

# the fastest level: a server has more bytes to send than time to think about them
_GZIP_LEVEL = 1
_GZIP_WINDOW = 31


class Encoder(Protocol):
    """Compresses one answer, piece by piece. May be called from any thread, by one at a time."""

    def encode(self, piece: bytes) -> bytes:
        """What is to be sent for it; all of it can be read from that."""
        ...

    def end(self) -> bytes:
        """What is to be sent last."""
        ...


class Gzip:
    """gzip, which every client reads."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def encode(self, piece: bytes) -> bytes:
        return self._compressor.compress(piece) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class Zstd:
    """zstd: a third of gzip's time, and smaller."""

    def __init__(self) -> None:
        self._sink = Buffer()
        self._stream = pa.CompressedOutputStream(pa.PythonFile(self._sink, "w"), "zstd")

    def encode(self, piece: bytes) -> bytes:
        self._stream.write(piece)
        self._stream.flush()
        return self._sink.take()

    def end(self) -> bytes:
        self._stream.close()
        return self._sink.take()


class Identity:
    """As it is."""

    def encode(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A name of `content-encoding`, and what encodes an answer."""

    name: str
    encoder: Callable[[], Encoder]

    def headers(self) -> list[Header]:
        return [] if self is IDENTITY else [(b"content-encoding", self.name.encode())]


IDENTITY = Encoding("identity", Identity)
_COMPRESSED = (Encoding("zstd", Zstd), Encoding("gzip", Gzip))


def encoding_for(accept: str | None) -> Encoding:
    """What the header `accept-encoding` likes best; without a word of compression, none."""
    qualities = dict(accepted(accept or ""))
    liked = [qualities.get(each.name, qualities.get("*", 0.0)) for each in _COMPRESSED]
    best = max(liked)
    if best <= 0 or best < qualities.get(IDENTITY.name, 0.0):
        return IDENTITY
    return _COMPRESSED[liked.index(best)]
