"""FlightData messages: Arrow IPC messages framed by hand on the way out, put together again on the way in.

Framing by hand saves protobuf's copies of every body. A dictionary is sent when it changed since the batch before, as a
replacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from micromegas.serve.flight.errors import invalid
from micromegas.serve.flight.ipc_sizes import inflated_size

_HEADER_TAG = b"\x12"
"""Field 2, length-delimited: `data_header`."""
_BODY_TAG = b"\xc2\x3e"
"""Field 1000, length-delimited: `data_body`."""
_CONTINUATION = b"\xff\xff\xff\xff"
_END_OF_STREAM = _CONTINUATION + b"\0\0\0\0"


def frame(header: bytes | memoryview, body: bytes | memoryview) -> bytes:
    """One serialized FlightData of an IPC message's metadata and body."""
    parts: list[bytes | memoryview] = [_HEADER_TAG, _varint(len(header)), header]
    if len(body):
        parts += [_BODY_TAG, _varint(len(body)), body]
    return b"".join(parts)


def schema_message(schema: pa.Schema) -> bytes:
    """The schema as an encapsulated IPC message: `FlightInfo.schema`, `SchemaResult.schema`, `table_schema` of
    GetTables."""
    return bytes(schema.serialize())


def schema_stream(schema: pa.Schema) -> bytes:
    """The schema as a whole IPC stream without batches: the form of prepared statements that all clients read."""
    return schema_message(schema) + _END_OF_STREAM


class FlightDataWriter:
    """Serializes the batches of one stream. `schema_frame()` comes first, once."""

    def __init__(self, schema: pa.Schema, compression: str | None = None) -> None:
        """`compression` of bodies: `lz4`, `zstd` or None."""
        self._schema = schema
        self._sink = _Chunks()
        # Only dictionaries need the memory of a stream writer, and only it compresses: plain batches are serialized on
        # their own, which is cheaper.
        self._writer: Any = None
        if compression is not None or any(map(_has_dictionary, schema.types)):
            options = pa.ipc.IpcWriteOptions(compression=compression)
            self._writer = pa.ipc.new_stream(self._sink.file, schema, options=options)

    def schema_frame(self) -> bytes:
        return frame(*_split(memoryview(self._schema.serialize())))

    def batch_frames(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """The frames of one batch, dictionaries first."""
        if self._writer is None:
            yield frame(*_split(memoryview(batch.serialize())))
            return
        self._writer.write_batch(batch)
        reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(self._sink.drain()))
        for message in reader:
            if message.type != "schema":
                yield frame(memoryview(message.metadata), memoryview(message.body or b""))


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


def _split(encapsulated: memoryview) -> tuple[memoryview, memoryview]:
    """Metadata and body of an encapsulated IPC message: continuation mark, int32 length, metadata, body."""
    end = 8 + int.from_bytes(encapsulated[4:8], "little")
    return encapsulated[8:end], encapsulated[end:]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _has_dictionary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind)) or any(
        _has_dictionary(kind.field(i).type) for i in range(kind.num_fields)
    )


class _Chunks:
    """A sink that gives up what was written since the last time."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.file = pa.PythonFile(self, mode="w")
        self.closed = False

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def drain(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data
