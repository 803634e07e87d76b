"""What the servers of all protocols by which queries are answered have in common. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.config.ingest import ApiKey
from micromegas.config.oidc import OidcSettings
from micromegas.config.tls import TlsSettings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringSettings(TlsSettings):
    """Where a server listens, who may ask, and how long it waits for readers.

    * `port` 0 takes a free port.
    * `api_keys`: with at least one, every caller must present one.
    * `oidc`: whose users may ask, too, with their tokens; then every caller must present a key or a token.
    * `admins`: names of the keys, e-mails or subjects of the persons who administer, with functions that change
      partitions; without any, all do.
    * `write_timeout_s`: a reader that takes nothing for so long is disconnected and its query ended.
    * `drain_timeout_s`: what runs when the server stops may take so long to end.
    """

    port: int
    host: str = "127.0.0.1"
    api_keys: tuple[ApiKey, ...] = ()
    admins: frozenset[str] = frozenset()
    oidc: OidcSettings | None = None
    write_timeout_s: float = 60.0
    drain_timeout_s: float = 25.0

    def __post_init__(self) -> None:
        TlsSettings.__post_init__(self)
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if self.write_timeout_s <= 0 or self.drain_timeout_s < 0:
            raise ValueError("timeouts of a server must be positive")
        if self.admins and not self.api_keys and self.oidc is None:
            raise ValueError("admins are named, but nobody can be told apart without api keys")
