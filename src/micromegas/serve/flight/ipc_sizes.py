"""What the body of an Arrow IPC message comes to, as it is sent and once it is inflated, read from the message itself:
a few bytes may declare gigabytes, and must be refused before anything is inflated. And where a message says so.

Reads the flatbuffer by hand; only of messages whose flatbuffer was verified.
"""

from __future__ import annotations

from dataclasses import dataclass

_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
_VERSION_5 = 4
_BUFFER_BYTES = 16
_LENGTH_BYTES = 8
_STORED = -1
"""The declared length of a buffer that compression would not have made smaller."""


@dataclass(frozen=True, slots=True)
class InflatedSize:
    """`dictionary` is the id of the one that the message brings, None of a record batch; `is_delta`: it adds to what is
    there."""

    size: int
    dictionary: int | None = None
    is_delta: bool = False


def body_size(header: bytes) -> int:
    """Bytes of the body that follows a message's metadata `header`, as they are sent."""
    return _message(header).number(3, 8)


def number_places(header: bytes) -> tuple[int, int, int, int] | None:
    """Where the metadata `header` of a record batch has its number of rows, the length of its body, its first node
    (64 bits of rows, then of nulls) and its first buffer (offset, then length); None where one is left out, as zeros
    are."""
    message = _message(header)
    batch = message.table(2)
    if message.number(1, 1) != _RECORD_BATCH or batch is None:
        return None
    places = (batch.place(0), message.place(3), batch.first_of(1), batch.first_of(2))
    return None if None in places else places  # type: ignore[return-value]


def inflated_size(header: bytes, body: bytes) -> InflatedSize:
    """Bytes of the buffers of a record batch or dictionary, 0 of other messages. `ValueError` for what can't be
    told."""
    message = _message(header)
    kind, content = message.number(1, 1), message.table(2)
    if content is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return InflatedSize(0)
    if message.number(0, 2) < _VERSION_5 and message.table(4) is not None:
        # where Arrow 0.17 said that the body is compressed
        raise ValueError("messages of Arrow before 1.0 are taken without custom metadata only")
    if kind == _RECORD_BATCH:
        return InflatedSize(_size(content, body))
    data = content.table(1)
    size = 0 if data is None else _size(data, body)
    return InflatedSize(size, content.number(0, 8), bool(content.number(2, 1)))


def _message(header: bytes) -> _Table:
    return _Table(header, int.from_bytes(header[:4], "little"))


def _size(batch: _Table, body: bytes) -> int:
    is_compressed = batch.table(3) is not None
    total = 0
    for offset, length in batch.buffers(2):
        if offset < 0 or length < 0 or offset + length > len(body):
            raise ValueError("a buffer lies outside of the body")
        total += _inflated(body, offset, length) if is_compressed and length else length
    return total


def _inflated(body: bytes, offset: int, length: int) -> int:
    declared = int.from_bytes(body[offset : offset + _LENGTH_BYTES], "little", signed=True)
    size = length - _LENGTH_BYTES if declared == _STORED else declared
    if size < 0:
        raise ValueError("a buffer declares a negative length")
    return size


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - self._int(position, 4, signed=True)

    def number(self, field: int, size: int) -> int:
        place = self.place(field)
        return 0 if place is None else self._int(place, size, signed=True)

    def table(self, field: int) -> _Table | None:
        place = self.place(field)
        return None if place is None else _Table(self._data, self._target(place))

    def buffers(self, field: int) -> list[tuple[int, int]]:
        """Offset and length of each `Buffer` of a vector."""
        first = self.first_of(field)
        if first is None:
            return []
        places = range(first, first + self._int(first - 4, 4) * _BUFFER_BYTES, _BUFFER_BYTES)
        return [(self._int(at, 8, signed=True), self._int(at + 8, 8, signed=True)) for at in places]

    def first_of(self, field: int) -> int | None:
        """Where the first item of a vector stands, behind their number."""
        place = self.place(field)
        return None if place is None else self._target(place) + 4

    def place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry >= self._int(self._vtable, 2):
            return None
        offset = self._int(self._vtable + entry, 2)
        return self._position + offset if offset else None

    def _target(self, place: int) -> int:
        return place + self._int(place, 4)

    def _int(self, place: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._data[place : place + size], "little", signed=signed)
