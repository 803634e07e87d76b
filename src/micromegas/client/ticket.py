"""The Flight ticket of a statement: a TicketStatementQuery inside an Any, encoded by hand so that a client needs no
protobuf."""

from __future__ import annotations

_TYPE_URL = b"type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery"


def statement_ticket(sql: str) -> bytes:
    """Serialized `Any { type_url = 1, value = 2 }` around `TicketStatementQuery { statement_handle = 1 }`."""
    statement = _field(1, sql.encode("utf-8"))
    return _field(1, _TYPE_URL) + _field(2, statement)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    out = bytearray([number << 3 | 2])
    length = len(value)
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + value
