"""Limits and address of the Flight SQL server. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from micromegas.config.ingest import ApiKey

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightSettings:
    """How the Flight SQL server listens and what one caller may cost.

    * `port` 0 takes a free port.
    * `write_timeout_s`: a reader that takes nothing for so long is disconnected and its query ended.
    * `read_timeout_s`: a sender (of parameters, of bulk ingestion) that sends nothing for so long is disconnected.
    * `max_message_bytes`: largest message that a caller may send.
    * `max_calls`: calls at once; beyond, callers get RESOURCE_EXHAUSTED.
    * `api_keys`: with at least one, every call but health checks must present one.
    * `tls_certificate`, `tls_key`: files in PEM form; with them the port speaks TLS only.
    * `admins`: names of the keys whose holders administer, with functions that change partitions; without any, all do.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    write_timeout_s: float = 60.0
    read_timeout_s: float = 60.0
    max_message_bytes: int = 100 * MIB
    max_calls: int = 1000
    drain_timeout_s: float = 25.0
    api_keys: tuple[ApiKey, ...] = ()
    admins: frozenset[str] = frozenset()
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if (
            min(self.max_message_bytes, self.max_calls) < 1
            or min(self.write_timeout_s, self.read_timeout_s) <= 0
            or self.drain_timeout_s < 0
        ):
            raise ValueError("flight sql limits must be positive")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls needs both a certificate and its key")
        if self.admins and not self.api_keys:
            raise ValueError("admins are named, but nobody can be told apart without api keys")
