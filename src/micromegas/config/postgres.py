"""Limits and address of the PostgreSQL gateway. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from micromegas.config.ingest import ApiKey

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """How the PostgreSQL gateway listens and what one session may cost.

    * `port` 0 takes a free port.
    * `api_keys`: with at least one, a session must log in: the user is the name of a key, the password is the key.
    * `admins`: names of the keys whose holders administer, with functions that change partitions; without any, all do.
    * `tls_certificate`, `tls_key`: files in PEM form; without them there is no TLS. `require_tls` refuses sessions
      without.
    * `write_timeout_s`: a reader that takes nothing for so long is disconnected and its query ended.
    * `max_message_bytes`: largest message of bound values that a client may send.
    """

    host: str = "127.0.0.1"
    port: int = 5432
    api_keys: tuple[ApiKey, ...] = ()
    admins: frozenset[str] = frozenset()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    require_tls: bool = False
    max_sessions: int = 200
    login_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0
    max_message_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if min(self.max_sessions, self.max_message_bytes) < 1 or self.drain_timeout_s < 0:
            raise ValueError("limits of the postgresql gateway must be positive")
        if min(self.login_timeout_s, self.write_timeout_s) <= 0:
            raise ValueError("limits of the postgresql gateway must be positive")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS needs both a certificate and its key")
        if self.require_tls and self.tls_certificate is None:
            raise ValueError("TLS can't be required without a certificate")
        if self.admins and not self.api_keys:
            raise ValueError("admins are named, but nobody can be told apart without api keys")
