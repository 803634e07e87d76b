"""Tables over an explicit list of files, which the DataFusion API can't make: it is edited into a serialized plan.

`ListingPlan` keeps the plan of a table over one made-up file and puts other paths and another name into its protobuf.
Never feed it bytes from outside: reading a plan may run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from datafusion import DataFrame, LogicalPlan, SessionContext

from micromegas.wire.varint import varint

# Field numbers of datafusion.proto in the pinned release; a contract test fails when they move.
_PLAN_LISTING_SCAN = 1
_SCAN_PATHS = 2
_SCAN_SCHEMA = 5
_SCAN_TABLE_NAME = 14
_SCHEMA_FIELD = 1
_FIELD_TYPE = 2
_REFERENCE_BARE = 1
_BARE_NAME = 1
_LENGTH_DELIMITED = 2

_ANY_FILE = "/micromegas-no-such-file"


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def message_fields(message: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """`(number, wire type, the whole field, its content if length-delimited)` of each field of a message."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        content = b""
        match key & 7:
            case 0:
                _, position = _read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _read_varint(message, position)
                content = message[position : position + length]
                position += length
            case 5:
                position += 4
            case other:
                raise ValueError(f"wire type {other} in a serialized plan")
        yield key >> 3, key & 7, message[start:position], content


def _delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(content)) + content


def listing_scan(context: SessionContext, schema: pa.Schema, *, arrow: bool = False) -> bytes:
    """The serialized scan of a table over one made-up file, Parquet or Arrow IPC.

    It has the reader's options of `context`, which keeps no trace of it.
    """
    if arrow:
        context.register_arrow("template", f"{_ANY_FILE}.arrow", schema=schema)
    else:
        context.register_listing_table("template", f"{_ANY_FILE}.parquet", schema=schema)
    plan = context.table("template").logical_plan().to_bytes()
    context.deregister_table("template")
    scans = [content for number, _, _, content in message_fields(plan) if number == _PLAN_LISTING_SCAN]
    if len(scans) != 1:
        raise ValueError("the serialized plan of a listing table is not a listing scan")
    return scans[0]


def serialized_column_types(scan: bytes) -> list[bytes]:
    """How the types of the table's columns are written, in order."""
    schema = next(content for number, _, _, content in message_fields(scan) if number == _SCAN_SCHEMA)
    fields = [content for number, _, _, content in message_fields(schema) if number == _SCHEMA_FIELD]
    return [next(part for number, _, _, part in message_fields(each) if number == _FIELD_TYPE) for each in fields]


class ListingPlan:
    """Maker of tables over files of one schema and one format, with the options of the context it was made in."""

    def __init__(self, context: SessionContext, schema: pa.Schema, *, arrow: bool = False) -> None:
        fields = list(message_fields(listing_scan(context, schema, arrow=arrow)))
        numbers = [number for number, *_ in fields]
        if numbers.count(_SCAN_PATHS) != 1 or numbers.count(_SCAN_TABLE_NAME) != 1:
            raise ValueError("the serialized plan of a listing table has an unknown layout")
        self._rest = b"".join(whole for number, _, whole, _ in fields if number not in (_SCAN_PATHS, _SCAN_TABLE_NAME))

    def table(self, context: SessionContext, name: str, urls: Sequence[str]) -> DataFrame:
        """A table called `name` over exactly the files `urls` (all of one store, at least one).

        Does no I/O, so it may be called while a statement is being planned.
        """
        if not urls:
            raise ValueError(f"table {name}: no file")
        reference = _delimited(_REFERENCE_BARE, _delimited(_BARE_NAME, name.encode()))
        paths = b"".join(_delimited(_SCAN_PATHS, url.encode()) for url in urls)
        scan = paths + self._rest + _delimited(_SCAN_TABLE_NAME, reference)
        plan = LogicalPlan.from_bytes(context, _delimited(_PLAN_LISTING_SCAN, scan))
        return context.create_dataframe_from_logical_plan(plan)
