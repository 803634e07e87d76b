"""A client of the protocol that may say anything, in any order."""

from __future__ import annotations

import socket
import struct
from typing import Self


class RawClient:
    """Sends bytes and reads messages as (letter, body). Context manager."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def say(self, kind: bytes, *parts: bytes) -> None:
        self.send(message(kind, *parts))

    def start(self, **parameters: str) -> bytes:
        """Begins a session and reads to the first ReadyForQuery; what cancels it."""
        self.send(startup({"user": "raw", "database": "micromegas", **parameters}))
        answers = self.until(b"Z")
        assert answers[-1] == (b"Z", b"I")
        return next(body for kind, body in answers if kind == b"K")

    def answer(self) -> tuple[bytes, bytes] | None:
        """The next message; None when the server has closed."""
        head = self._file.read(5)
        if len(head) < 5:
            return None
        return head[:1], self._file.read(int.from_bytes(head[1:], "big") - 4)

    def until(self, kind: bytes) -> list[tuple[bytes, bytes]]:
        """Messages up to one of a kind."""
        answers = []
        while (answer := self.answer()) is not None:
            answers.append(answer)
            if answer[0] == kind:
                return answers
        raise AssertionError(f"no {kind!r} came, but {answers}")

    def rest(self) -> list[tuple[bytes, bytes]]:
        """Messages until the server closes."""
        answers = []
        while (answer := self.answer()) is not None:
            answers.append(answer)
        return answers


def cancel(port: int, key: bytes) -> None:
    """Cancels what the session with this key does."""
    with RawClient(port) as canceller:
        canceller.send(struct.pack("!ii", 8 + len(key), 80877102) + key)
        assert canceller.rest() == []


def message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("!i", len(body) + 4) + body


def startup(parameters: dict[str, str], version: int = 0x30000) -> bytes:
    pairs = b"".join(text(name) + text(value) for name, value in parameters.items())
    body = struct.pack("!i", version) + pairs + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def state_of(body: bytes) -> str:
    """SQLSTATE of an ErrorResponse."""
    return {part[:1]: part[1:] for part in body.split(b"\0") if part}[b"C"].decode()
