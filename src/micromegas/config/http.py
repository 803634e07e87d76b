"""Limits and address of the HTTP server that answers queries. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.config.ingest import ApiKey

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the HTTP server of queries listens and what one caller may cost.

    * `port` 0 takes a free port. `optional`: where the port is taken, the others of the process go on without this one.
    * `header_timeout_s`, `body_timeout_s`: a request whose headers or body take longer to come is given up.
    * `write_timeout_s`: a reader that takes nothing for so long is disconnected and its query ended.
    * `max_body_bytes`: the largest request: a statement as JSON, with its parameters.
    * `max_calls`: requests at once; beyond, callers get 503.
    * `whole_bytes`: an answer up to this size is sent in one piece, so that whatever goes wrong has a status.
    * `api_keys`, `admins`: as of `FlightSettings`.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    optional: bool = False
    header_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_body_bytes: int = 4 * MIB
    max_calls: int = 1000
    whole_bytes: int = MIB
    drain_timeout_s: float = 25.0
    api_keys: tuple[ApiKey, ...] = ()
    admins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if min(self.max_body_bytes, self.max_calls) < 1 or self.whole_bytes < 0 or self.drain_timeout_s < 0:
            raise ValueError("http limits must be positive")
        if min(self.header_timeout_s, self.body_timeout_s, self.write_timeout_s) <= 0:
            raise ValueError("http timeouts must be positive")
        if self.admins and not self.api_keys:
            raise ValueError("admins are named, but nobody can be told apart without api keys")
