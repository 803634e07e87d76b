"""A gzip body inflated within bounds. It must never hold more of it than it was asked for."""

from __future__ import annotations

import zlib

from micromegas.wire import WireError

GZIP = 31


class TooLong(Exception):
    """There is more in the body than its limit allows."""


class Gunzip:
    """One body, inflated in one or two steps: the first may be taken where a long one would hold others up."""

    def __init__(self, body: bytes) -> None:
        self._inflater = zlib.decompressobj(GZIP)
        self._rest = body
        self._inflated = b""

    def inflate(self, limit: int) -> bytes | None:
        """The whole content, or None when it is longer than `limit` bytes and can be asked for with a higher one.
        Raises `WireError` for what is no gzip."""
        try:
            while not self._inflater.eof and len(self._inflated) <= limit:
                piece = self._inflater.decompress(self._rest, limit + 1 - len(self._inflated))
                self._rest = self._inflater.unconsumed_tail
                self._inflated += piece
                if not piece and not self._rest and not self._inflater.eof:
                    raise WireError("gzip: the body ends early")
        except zlib.error as error:
            raise WireError(f"gzip: {error}") from None
        if len(self._inflated) > limit:
            return None
        if self._inflater.unused_data:
            raise WireError("gzip: bytes after the end")
        return self._inflated
