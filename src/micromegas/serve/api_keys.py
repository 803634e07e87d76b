"""Who may call: named API keys, presented as `Bearer <key>` or as the password of `Basic`. Never keeps or compares a
key in plain text."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from micromegas.config.ingest import ApiKey


class ApiKeys:
    """The accepted keys. Looked up by hash, so that the time of a look-up tells nothing about a key."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._names = {_hash(key.key): key.name for key in keys}

    def __bool__(self) -> bool:
        return bool(self._names)

    def name_of(self, key: str | None) -> str | None:
        """The name of an accepted key, else None."""
        return None if key is None else self._names.get(_hash(key))


def presented_key(authorization: str) -> str | None:
    """The key in an `authorization` header: a bearer token, or the password of basic credentials; None when there is
    neither.

    Go clients send base64 without padding.
    """
    scheme, _, credentials = authorization.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials or None
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials + "=" * (-len(credentials) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    _, separator, password = decoded.partition(":")
    return password if separator and password else None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
