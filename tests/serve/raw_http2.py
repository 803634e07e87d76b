"""A client of HTTP/2 that does what no library would: frame by frame, right or wrong."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS = 4
DO_GET = "/arrow.flight.protocol.FlightService/DoGet"
DO_PUT = "/arrow.flight.protocol.FlightService/DoPut"


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Of an answer without a body: headers and status in one."""
        return self.kind == HEADERS and bool(self.flags & END_STREAM)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """`length` other than that of the payload is a lie."""
    told = len(payload) if length is None else length
    return told.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def block(headers: dict[str, str]) -> bytes:
    """HPACK without its arts: each header is a literal that nobody remembers."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def _text(text: str) -> bytes:
    encoded = text.encode("latin-1")
    if len(encoded) < 127:
        return bytes([len(encoded)]) + encoded
    rest, out = len(encoded) - 127, bytearray([127])
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out) + encoded


def call_headers(path: str = DO_GET, **more: str) -> dict[str, str]:
    """`more`: further headers, or others in place of the usual ones, with `_` for `-`."""
    usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    return usual | {"content-type": "application/grpc"} | {name.replace("_", "-"): more[name] for name in more}


def message(body: bytes, flag: int = 0, length: int | None = None) -> bytes:
    told = len(body) if length is None else length
    return bytes([flag]) + told.to_bytes(4, "big") + body


class RawClient:
    """A connection that has greeted as it should, unless told otherwise."""

    def __init__(self, port: int, greeting: bytes = PREFACE + frame(SETTINGS, 0, 0)) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(60)
        self._received = self.socket.makefile("rb")
        self.send(greeting)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._received.close()
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def begin(self, stream: int, headers: dict[str, str] | None = None, flags: int = END_HEADERS) -> None:
        self.send(frame(HEADERS, flags, stream, block(headers or call_headers())))

    def ask(self, stream: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole call of one message."""
        self.begin(stream, headers)
        self.send(frame(DATA, END_STREAM, stream, message(body)))

    def frames(self) -> Iterator[Frame]:
        """What the server says, until it hangs up."""
        while len(head := self._read(9)) == 9:
            length = int.from_bytes(head[:3], "big")
            yield Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), self._read(length))

    def until(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind."""
        for received in self.frames():
            if received.kind == kind and stream in (None, received.stream):
                return received
        raise AssertionError("the server hung up")

    def _read(self, count: int) -> bytes:
        try:
            return self._received.read(count) or b""
        except ConnectionError:
            return b""
