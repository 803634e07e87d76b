"""The few messages of Flight SQL that a client needs, written and read by hand so that it needs no protobuf."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.wire.varint import varint

_TYPE_URL = "type.googleapis.com/arrow.flight.protocol.sql."
_BYTES = 2
"""Wire type of texts, bytes and messages."""


@dataclass(frozen=True, slots=True)
class PreparedResult:
    """ActionCreatePreparedStatementResult: the schemas are IPC messages, empty where there is none."""

    handle: bytes
    dataset_schema: bytes
    parameter_schema: bytes


def statement_ticket(sql: str) -> bytes:
    """The ticket of a statement, which needs no question before it: TicketStatementQuery."""
    return _packed("TicketStatementQuery", _field(1, sql.encode("utf-8")))


def create_statement(sql: str) -> bytes:
    """ActionCreatePreparedStatementRequest."""
    return _packed("ActionCreatePreparedStatementRequest", _field(1, sql.encode("utf-8")))


def close_statement(handle: bytes) -> bytes:
    """ActionClosePreparedStatementRequest."""
    return _packed("ActionClosePreparedStatementRequest", _field(1, handle))


def prepared_query(handle: bytes) -> bytes:
    """CommandPreparedStatementQuery: what values are bound to, and the ticket of the rows."""
    return _packed("CommandPreparedStatementQuery", _field(1, handle))


def ingest_command(table: str) -> bytes:
    """CommandStatementIngest into a table that exists."""
    # TableDefinitionOptions: fail where there is no such table, append where there is
    options = _number(1, 1) + _number(2, 2)
    return _packed("CommandStatementIngest", _field(1, options) + _field(2, table.encode("utf-8")))


def read_prepared_result(packed: bytes) -> PreparedResult:
    """Raises `ValueError` for bytes that hold no such message."""
    fields = _fields(_unpacked(packed, "ActionCreatePreparedStatementResult"))
    return PreparedResult(*(_bytes(fields.get(number, b"")) for number in (1, 2, 3)))


def read_bound_handle(metadata: bytes) -> bytes | None:
    """The handle that a server wants to be used from now on (DoPutPreparedStatementResult), if it names one."""
    return _bytes(_fields(metadata).get(1, b"")) or None


def read_record_count(metadata: bytes) -> int | None:
    """Rows of DoPutUpdateResult; None when the server doesn't know them, which it says as -1."""
    count = _fields(metadata).get(1, 0)
    if not isinstance(count, int):
        raise ValueError("the server's count of rows is no number")
    return None if count >= 1 << 63 else count


def _packed(name: str, body: bytes) -> bytes:
    """`google.protobuf.Any`."""
    return _field(1, (_TYPE_URL + name).encode()) + _field(2, body)


def _unpacked(packed: bytes, name: str) -> bytes:
    fields = _fields(packed)
    if fields.get(1) != (_TYPE_URL + name).encode():
        raise ValueError(f"the server's answer is no {name}")
    return _bytes(fields.get(2, b""))


def _field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are due in the server's answer")
    return value


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Numbers and bytes of a message by field; fields of other types are passed over."""
    fields: dict[int, int | bytes] = {}
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == 0:
            fields[key >> 3], position = _read_varint(message, position)
            continue
        if kind == _BYTES:
            size, position = _read_varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"the server's answer holds wire type {kind}")
        if position + size > len(message):
            raise ValueError("the server's answer ends early")
        if kind == _BYTES:
            fields[key >> 3] = message[position : position + size]
        position += size
    return fields


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("the server's answer holds a broken number")
