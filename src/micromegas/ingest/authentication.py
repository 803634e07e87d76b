"""Who may send: bearer keys, looked up by their digest, and tokens, which somebody else checks. It must never compare
or print a key itself."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable

from micromegas.config import ApiKey

SCHEME = "Bearer "

TokenCheck = Callable[[str], Awaitable[bool]]
"""Whether a token is good; raises `AdmissionUnknown`."""


class AdmissionUnknown(Exception):
    """Whether a token is good can't be found out now."""


class KeyRing:
    """The keys and tokens that are accepted; without either, everybody is."""

    def __init__(self, keys: Iterable[ApiKey], tokens: TokenCheck | None = None) -> None:
        # A dictionary of digests tells nothing about a key by the time that a look-up takes.
        self._names = {_digest(key.key): key.name for key in keys}
        self._tokens = tokens

    async def accepts(self, authorization: str | None) -> bool:
        """Whether this `Authorization` header may send; raises `AdmissionUnknown`."""
        if not self._names and self._tokens is None:
            return True
        if authorization is None or not authorization.startswith(SCHEME):
            return False
        presented = authorization[len(SCHEME) :]
        return _digest(presented) in self._names or (self._tokens is not None and await self._tokens(presented))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
