"""Limits and address of the HTTP server that answers queries. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.config.answering import MIB, AnsweringSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings(AnsweringSettings):
    """How the HTTP server of queries listens and what one caller may cost.

    * with a certificate the port speaks HTTPS only. `optional`: where the port is taken, the others of the process go
      on without this one.
    * `host_names`: names by which callers may ask where there are no API keys, beside those that can't be a stranger's.
    * `header_timeout_s`, `body_timeout_s`: a request whose headers or body take longer to come is given up.
    * `max_body_bytes`: the largest request: a statement as JSON, with its parameters.
    * `max_calls`: requests at once; beyond, callers get 503.
    * `whole_bytes`: an answer up to this size is sent in one piece, so that whatever goes wrong has a status.
    """

    port: int = 3000
    optional: bool = False
    host_names: frozenset[str] = frozenset()
    header_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    max_body_bytes: int = 4 * MIB
    max_calls: int = 1000
    whole_bytes: int = MIB

    def __post_init__(self) -> None:
        AnsweringSettings.__post_init__(self)
        if min(self.max_body_bytes, self.max_calls) < 1 or self.whole_bytes < 0:
            raise ValueError("http limits must be positive")
        if min(self.header_timeout_s, self.body_timeout_s) <= 0:
            raise ValueError("http timeouts must be positive")
