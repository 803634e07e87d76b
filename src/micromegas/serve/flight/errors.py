"""Errors on their way to a Flight SQL client: a gRPC status and one clean text. Never a traceback, never a text so long
that gRPC loses it."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from micromegas.query.errors import MAX_MESSAGE, QueryError

StatusName = Literal[
    "INVALID_ARGUMENT",
    "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
]

# gRPC clients accept about 8 KB of trailing metadata, and the text travels percent-encoded: up to 12 bytes a character.
MAX_ENCODED = 4096

_STATUS_OF_KIND: dict[str, StatusName] = {
    "invalid": "INVALID_ARGUMENT",
    "unimplemented": "UNIMPLEMENTED",
    "exhausted": "RESOURCE_EXHAUSTED",
    "internal": "INTERNAL",
}


class FlightError(Exception):
    """A call that ends with gRPC status `status` and the text `message` (cut by `clip` to what every client can
    receive)."""

    def __init__(self, status: StatusName, message: str) -> None:
        message = clip(message)
        super().__init__(message)
        self.status: StatusName = status
        self.message = message


def invalid(message: str) -> FlightError:
    return FlightError("INVALID_ARGUMENT", message)


def unimplemented(message: str) -> FlightError:
    return FlightError("UNIMPLEMENTED", message)


def from_query_error(error: QueryError) -> FlightError:
    return FlightError(_STATUS_OF_KIND[error.kind], error.message)


def clip(message: str) -> str:
    """At most `MAX_MESSAGE` characters and `MAX_ENCODED` percent-encoded bytes, with `…` where something was cut."""
    clipped = message.encode("utf-8", "replace").decode("utf-8")
    if len(clipped) > MAX_MESSAGE:
        clipped = clipped[: MAX_MESSAGE - 1] + "…"
    while len(quote(clipped, safe=" ")) > MAX_ENCODED:
        clipped = clipped[: len(clipped) * 3 // 4] + "…"
    return clipped
