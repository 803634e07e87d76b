"""Limits and address of the Flight SQL server. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.config.answering import MIB, AnsweringSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightSettings(AnsweringSettings):
    """How the Flight SQL server listens and what one caller may cost.

    * with a certificate the port speaks TLS only; health checks need no key.
    * `read_timeout_s`: a sender (of parameters, of bulk ingestion) that sends nothing for so long is disconnected.
    * `max_message_bytes`: largest message that a caller may send.
    * `keepalive_s`: a connection that is silent for so long is asked whether its other end is there; it is closed when
      nothing comes within `keepalive_patience_s`.
    * `max_calls`: calls at once of this process; beyond, callers get RESOURCE_EXHAUSTED.
    """

    port: int = 50051
    read_timeout_s: float = 60.0
    keepalive_s: float = 20.0
    keepalive_patience_s: float = 10.0
    max_message_bytes: int = 100 * MIB
    max_calls: int = 1000

    def __post_init__(self) -> None:
        AnsweringSettings.__post_init__(self)
        times = (self.read_timeout_s, self.keepalive_s, self.keepalive_patience_s)
        if min(self.max_message_bytes, self.max_calls) < 1 or min(times) <= 0:
            raise ValueError("flight sql limits must be positive")
