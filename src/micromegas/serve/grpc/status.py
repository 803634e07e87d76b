"""How a call ends. Never with a traceback, never with a text so long that gRPC loses it."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from micromegas.query.errors import MAX_MESSAGE

StatusName = Literal[
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
]

OK = 0
CODES: dict[StatusName, int] = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "ABORTED": 10,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}

# gRPC clients accept about 8 KB of trailing metadata, and the text travels percent-encoded: up to 12 bytes a character.
MAX_ENCODED = 4096


class CallError(Exception):
    """A call that ends with gRPC status `status` and the text `message` (cut by `clip` to what every client can
    receive)."""

    def __init__(self, status: StatusName, message: str) -> None:
        message = clip(message)
        super().__init__(message)
        self.status: StatusName = status
        self.message = message


def clip(message: str) -> str:
    """At most `MAX_MESSAGE` characters and `MAX_ENCODED` percent-encoded bytes, with `…` where something was cut."""
    clipped = message.encode("utf-8", "replace").decode("utf-8")
    if len(clipped) > MAX_MESSAGE:
        clipped = clipped[: MAX_MESSAGE - 1] + "…"
    while len(quote(clipped, safe=" ")) > MAX_ENCODED:
        clipped = clipped[: len(clipped) * 3 // 4] + "…"
    return clipped
