"""Messages of the PostgreSQL protocol 3.0, as bytes. Knows their layout only, not their order."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from micromegas.serve.postgres.errors import PostgresError, protocol_violation

PROTOCOL_3 = 0x30000
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
PARSE_COMPLETE = b"1\0\0\0\x04"
BIND_COMPLETE = b"2\0\0\0\x04"
CLOSE_COMPLETE = b"3\0\0\0\x04"
NO_DATA = b"n\0\0\0\x04"
PORTAL_SUSPENDED = b"s\0\0\0\x04"
EMPTY_QUERY = b"I\0\0\0\x04"
COPY_DONE = b"c\0\0\0\x04"
# what stands before and behind the rows of COPY's binary format: its signature with no flags and no extension, and a
# row with a number of fields that none has
COPY_BINARY_BEGIN, COPY_BINARY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"

_INT16, _INT32 = struct.Struct("!h"), struct.Struct("!i")
_FIELD = struct.Struct("!ihihih")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result as it is described to a client."""

    name: str
    type_oid: int
    type_length: int
    type_modifier: int = -1


@dataclass(frozen=True, slots=True)
class Message:
    """A message of either side: its letter, and what stands behind its length; `refusal` of one that was not read."""

    kind: bytes
    body: bytes
    refusal: PostgresError | None = None

    def encoded(self) -> bytes:
        return message(self.kind, self.body)


class Body:
    """Reads the body of a message; whatever doesn't fit is a `PostgresError` of the protocol."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def int16(self) -> int:
        return int(_INT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        return int(_INT32.unpack(self.take(4))[0])

    def uint32(self) -> int:
        return self.int32() & 0xFFFF_FFFF

    def int16s(self) -> list[int]:
        return [self.int16() for _ in range(self._count())]

    def uint32s(self) -> list[int]:
        return [self.uint32() for _ in range(self._count())]

    def values(self) -> list[bytes | None]:
        """Values behind their lengths; -1 is NULL."""
        return [self._value() for _ in range(self._count())]

    def text(self) -> str:
        end = self._body.find(b"\0", self._position)
        if end < 0:
            raise protocol_violation("a text without its end")
        content = self._body[self._position : end]
        self._position = end + 1
        return decoded(content)

    def take(self, length: int) -> bytes:
        end = self._position + length
        if length < 0 or end > len(self._body):
            raise protocol_violation("a message that ends too early")
        content = self._body[self._position : end]
        self._position = end
        return content

    def rest(self) -> bytes:
        content = self._body[self._position :]
        self._position = len(self._body)
        return content

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._body) - self._position

    def __len__(self) -> int:
        return len(self._body)

    @property
    def is_at_end(self) -> bool:
        return self._position == len(self._body)

    def _count(self) -> int:
        return self.int16() & 0xFFFF

    def _value(self) -> bytes | None:
        length = self.int32()
        return None if length == -1 else self.take(length)


def split(content: bytes) -> list[bytes]:
    """Messages one by one that stand behind each other."""
    parts: list[bytes] = []
    place = 0
    while place < len(content):
        end = place + 1 + int.from_bytes(content[place + 1 : place + 5], "big")
        parts.append(content[place:end])
        place = end
    return parts


def decoded(content: bytes) -> str:
    """Text of a client, which must be UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise PostgresError("22021", 'invalid byte sequence for encoding "UTF8"') from None


def message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + _INT32.pack(len(body) + 4) + body


def text(value: str) -> bytes:
    """A text with its end; NUL can't be sent."""
    return value.replace("\0", "").encode("utf-8", "replace") + b"\0"


def int16s(values: Sequence[int]) -> bytes:
    return struct.pack(f"!H{len(values)}h", len(values), *values)


def values(each_value: Sequence[bytes | None]) -> bytes:
    """Values behind their lengths, as `Body.values` reads them."""
    parts = [struct.pack("!H", len(each_value))]
    for value in each_value:
        parts += [b"\xff\xff\xff\xff"] if value is None else [_INT32.pack(len(value)), value]
    return b"".join(parts)


def uint32s(values: Sequence[int]) -> bytes:
    return struct.pack(f"!H{len(values)}I", len(values), *values)


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", text(name), text(value))


def backend_key(process: int, secret: int) -> bytes:
    return message(b"K", struct.pack("!iI", process, secret))


def ready_for_query(state: bytes) -> bytes:
    """`state`: `I` outside of a transaction, `T` inside, `E` inside of a failed one."""
    return message(b"Z", state)


def row_description(columns: Sequence[Column], formats: Sequence[int]) -> bytes:
    fields = [struct.pack("!H", len(columns))]
    for column, form in zip(columns, formats, strict=True):
        fields.append(text(column.name))
        oid = column.type_oid - 2**32 if column.type_oid >= 2**31 else column.type_oid
        fields.append(_FIELD.pack(0, 0, oid, column.type_length, column.type_modifier, form))
    return message(b"T", *fields)


def read_row_description(body: bytes) -> tuple[Column, ...]:
    reader = Body(body)
    columns = []
    for _ in range(reader.int16()):
        name = reader.text()
        reader.take(6)
        oid, length, modifier = reader.uint32(), reader.int16(), reader.int32()
        reader.take(2)
        columns.append(Column(name, oid, length, modifier))
    return tuple(columns)


def parameter_description(oids: Sequence[int]) -> bytes:
    return message(b"t", uint32s(oids))


def command_complete(tag: str) -> bytes:
    return message(b"C", text(tag))


def copy_out(columns: int, form: int) -> bytes:
    return message(b"H", bytes([form]), int16s([form] * columns))


def copy_data(content: bytes) -> bytes:
    return message(b"d", content)


def startup(parameters: dict[str, str]) -> bytes:
    """What a client begins a session with."""
    pairs = b"".join(text(name) + text(value) for name, value in parameters.items())
    body = _INT32.pack(PROTOCOL_3) + pairs + b"\0"
    return _INT32.pack(len(body) + 4) + body
