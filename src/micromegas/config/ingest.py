"""Limits and address of the ingestion service. It must never print an API key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from micromegas.config.oidc import OidcSettings
from micromegas.config.tls import TlsSettings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A named key that a sender may present as `Authorization: Bearer <key>`."""

    name: str
    key: str = field(repr=False)


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """Read a JSON array of `{"name", "key"}` objects; raises `ValueError` that never repeats the text."""
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"api keys: not JSON at character {error.pos}") from None
    if not isinstance(entries, list):
        raise ValueError("api keys: not a JSON array")
    keys = []
    for position, entry in enumerate(entries):
        name, key = (entry.get("name"), entry.get("key")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(key, str) or not key:
            raise ValueError(f"api keys: entry {position} lacks a text name or a non-empty text key")
        keys.append(ApiKey(name, key))
    return tuple(keys)


def parse_admins(text: str) -> frozenset[str]:
    """Read a JSON array of names of keys; raises `ValueError` that says what is wrong with it."""
    try:
        names = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"admins: not JSON at character {error.pos}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("admins: not a JSON array of names")
    return frozenset(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings(TlsSettings):
    """How the ingestion service listens and how much it holds in memory.

    * `port` 0 takes a free port; with a certificate it speaks HTTPS only.
    * with `api_keys` or `oidc` every sender must present a key, or a token of one of these providers.
    * `queue_rows`, `queue_bytes` bound everything received and not yet committed; beyond, senders get 503.
    * `lanes`: commits in flight at once; None = the sink's own advice.
    * `batch_rows`, `batch_bytes`: the most that one commit takes.
    * `otlp_max_body_bytes`, `otlp_max_inflated_bytes`: the most that an OTLP request has as it is sent (no more than
      `max_body_bytes` in any case), and after decompression.
    * `otlp_retry_after_s`: when the sender of one shall come again after trouble with storage.
    """

    host: str = "127.0.0.1"
    port: int = 9000
    max_body_bytes: int = 100 * MIB
    queue_rows: int = 20_000
    queue_bytes: int = 256 * MIB
    lanes: int | None = None
    batch_rows: int = 512
    batch_bytes: int = 8 * MIB
    retry_after_s: int = 1
    otlp_max_body_bytes: int = 20 * MIB
    otlp_max_inflated_bytes: int = 300 * MIB
    otlp_retry_after_s: int = 30
    max_connections: int = 10_000
    body_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    ready_timeout_s: float = 2.0
    ready_cache_s: float = 1.0
    api_keys: tuple[ApiKey, ...] = ()
    oidc: OidcSettings | None = None

    def __post_init__(self) -> None:
        TlsSettings.__post_init__(self)
        if self.queue_bytes < self.max_body_bytes:
            raise ValueError(f"queue of {self.queue_bytes} bytes can never hold a body of {self.max_body_bytes} bytes")
        if min(self.queue_rows, self.batch_rows, self.batch_bytes, self.max_connections) < 1:
            raise ValueError("queue, batch and connection limits must be positive")
        if self.lanes is not None and self.lanes < 1:
            raise ValueError("at least one commit lane is needed")
