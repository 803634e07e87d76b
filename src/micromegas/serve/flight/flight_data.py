"""FlightData messages: Arrow IPC messages framed by hand on the way out, put together again on the way in.

What leaves is not copied: a message is a list of parts, and those of its body are Arrow's own buffers. A dictionary is
sent when it changed since the batch before, as a replacement. Arrow writes the first batch of a stream; where all
columns are plain, the transport makes the others after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from micromegas._transport import Body, Layout
from micromegas.serve.flight.errors import invalid
from micromegas.serve.flight.ipc_sizes import body_size, inflated_size, number_places

_HEADER_TAG = b"\x12"
"""Field 2, length-delimited: `data_header`."""
_BODY_TAG = b"\xc2\x3e"
"""Field 1000, length-delimited: `data_body`."""
_CONTINUATION = b"\xff\xff\xff\xff"
_END_OF_STREAM = _CONTINUATION + b"\0\0\0\0"
_PREFIX = 8
"""Continuation mark and length in front of an encapsulated message's metadata."""
_NOT_PLAIN = -1


class FlightData(NamedTuple):
    """One serialized FlightData: its parts (`bytes`, `pyarrow.Buffer`, the transport's `Body`) in order, `size` bytes
    together."""

    parts: list[Any]
    size: int


def schema_message(schema: pa.Schema) -> bytes:
    """The schema as an encapsulated IPC message: `FlightInfo.schema`, `SchemaResult.schema`, `table_schema` of
    GetTables."""
    return bytes(schema.serialize())


def schema_stream(schema: pa.Schema) -> bytes:
    """The schema as a whole IPC stream without batches: the form of prepared statements that all clients read."""
    return schema_message(schema) + _END_OF_STREAM


class FlightDataWriter:
    """Serializes the batches of one stream."""

    def __init__(self, schema: pa.Schema, compression: str | None = None) -> None:
        """`compression` of bodies: `lz4`, `zstd` or None."""
        self._schema = schema
        self._has_begun = False
        self._pieces: list[Any] = []
        self._may_be_plain = compression is None
        self._layout: Layout | None = None
        self._first_header: bytes | None = None
        # the sink doesn't know its file: a circle would keep both until the garbage collector comes
        file = pa.PythonFile(_Sink(self._pieces), mode="w")
        self._writer = pa.ipc.new_stream(file, schema, options=pa.ipc.IpcWriteOptions(compression=compression))

    def schema_frame(self) -> FlightData:
        """Comes first, once."""
        return _framed(schema_message(self._schema)[_PREFIX:], [], 0)

    def batch_frames(self, batch: pa.RecordBatch) -> Iterator[FlightData]:
        """The frames of one batch, dictionaries first. They hold its buffers, which must not change until they are
        sent."""
        if (message := self._made(batch)) is not None:
            header, body = message
            yield _framed(header, [body], len(body))
            return
        self._writer.write_batch(batch)
        pieces = iter(self._pieces.copy())
        self._pieces.clear()
        if not self._has_begun:
            # the schema, which has no body and was sent on its own
            next(pieces)
            _taken(pieces, int.from_bytes(next(pieces), "little"))
            self._has_begun = True
        for mark in pieces:
            header, parts, size = _message(pieces, mark)
            self._first_header = self._first_header or header
            yield _framed(header, parts, size)

    def _made(self, batch: pa.RecordBatch) -> tuple[bytes, Body] | None:
        """Metadata and body of a batch of plain columns, once there is another to go by; None of others, and of what
        Arrow has to refuse."""
        if self._layout is None:
            # not before there is a second batch: most answers have one
            if not self._may_be_plain or self._first_header is None:
                return None
            columns = _plain_columns(self._schema)
            if columns is None:
                self._may_be_plain = False
                return None
            places = number_places(self._first_header)
            if places is None:
                # of no rows
                self._first_header = None
                return None
            self._layout = Layout(self._schema, columns, self._first_header, places)
        # the offsets of no texts may be missing
        if batch.num_rows == 0 or not batch.schema.equals(self._schema):
            return None
        return self._layout.message(batch)


class IncomingBatches:
    """The batches of a stream that a stranger sends as FlightData, one after the other."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: what a batch may come to with its dictionaries, however small its body is made."""
        self._max_bytes = max_bytes
        self._pending = _Pending()
        self._reader: Any = None
        self._dictionaries: dict[int, int] = {}
        self._unread: set[int] = set()

    @property
    def schema(self) -> pa.Schema | None:
        """None before the schema has come."""
        return None if self._reader is None else self._reader.schema

    def take(self, header: bytes, body: bytes) -> pa.RecordBatch | None:
        """The batch that came with this message, if it is one; everything in it was checked.

        Each message is looked at on its own, because a body that is too short would swallow the message after it.
        Raises an invalid-argument error.
        """
        padding = bytes(-len(header) % 8)
        length = (len(header) + len(padding)).to_bytes(4, "little")
        try:
            message = pa.ipc.read_message(b"".join((_CONTINUATION, length, header, padding, body)))
            if (message.type == "schema") != (self._reader is None):
                raise invalid("the arrow stream must begin with its one schema")
            self._limit(header, body)
            self._pending.put(bytes(message.serialize()))
            if self._reader is None:
                self._reader = pa.ipc.open_stream(self._pending.file)
            elif message.type == "record batch":
                batch = self._reader.read_next_batch()
                self._unread.clear()
                batch.validate(full=True)
                return batch
        except (pa.ArrowException, OSError, ValueError, EOFError, StopIteration) as error:
            raise invalid(f"what was put is no arrow stream: {error}") from None
        return None

    def _limit(self, header: bytes, body: bytes) -> None:
        """Refuses what would come to too many bytes."""
        inflated = inflated_size(header, body)
        size = inflated.size
        if inflated.dictionary is not None:
            # the batch that comes next reads all of them, also those that were replaced
            if inflated.is_delta or inflated.dictionary in self._unread:
                size += self._dictionaries.get(inflated.dictionary, 0)
            self._dictionaries[inflated.dictionary] = size
            self._unread.add(inflated.dictionary)
            size = 0
        if size + sum(self._dictionaries.values()) > self._max_bytes:
            raise invalid(f"a batch of more than {self._max_bytes} bytes")


class _Pending:
    """A source of exactly the messages that were put."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.file = pa.PythonFile(self, mode="r")
        self.closed = False

    def put(self, message: bytes) -> None:
        self._data += message

    def read(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def close(self) -> None:
        self.closed = True


def _plain_columns(schema: pa.Schema) -> list[int | None] | None:
    """Bits of a value of each column (0 where all are null, None of texts of any length); None where a column is
    nested or something else that only Arrow writes."""
    columns = [_plain_column(kind) for kind in schema.types]
    return None if _NOT_PLAIN in columns else columns


def _plain_column(kind: Any) -> int | None:
    if pa.types.is_null(kind):
        return 0
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return None
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        return int(kind.bit_width) or _NOT_PLAIN
    return _NOT_PLAIN


def _message(pieces: Iterator[Any], mark: bytes) -> tuple[bytes, list[Any], int]:
    """Metadata, body and the body's size of the encapsulated IPC message that begins with `mark`; what follows it is
    left in `pieces`."""
    assert mark == _CONTINUATION
    header = b"".join(_taken(pieces, int.from_bytes(next(pieces), "little")))
    size = body_size(header)
    return header, _taken(pieces, size), size


def _taken(pieces: Iterator[Any], size: int) -> list[Any]:
    """So many bytes; Arrow writes no two things in one piece."""
    taken = []
    while size > 0:
        piece = next(pieces)
        taken.append(piece)
        size -= len(piece)
    assert size == 0
    return taken


def _framed(header: bytes, body: list[Any], body_size: int) -> FlightData:
    start = _HEADER_TAG + _varint(len(header)) + header
    if body_size:
        start += _BODY_TAG + _varint(body_size)
    return FlightData([start, *body], len(start) + body_size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Sink:
    """Keeps what is written as it comes: of bodies, Arrow's own buffers."""

    closed = False

    def __init__(self, pieces: list[Any]) -> None:
        self.write = pieces.append

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
