"""Who may send: bearer keys, looked up by their digest. It must never compare or print a key itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from micromegas.config import ApiKey

SCHEME = "Bearer "


class KeyRing:
    """The keys that are accepted; an empty ring accepts everybody."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        # A dictionary of digests tells nothing about a key by the time that a look-up takes.
        self._names = {_digest(key.key): key.name for key in keys}

    def accepts(self, authorization: str | None) -> bool:
        """Whether this `Authorization` header may send."""
        if not self._names:
            return True
        if authorization is None or not authorization.startswith(SCHEME):
            return False
        return _digest(authorization[len(SCHEME) :]) in self._names


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
