"""The placeholders of a statement and their types, as far as its plan tells them.

The bindings show the type of a placeholder in the serialized plan only. A type that can't be told is text.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from datafusion import LogicalPlan, SessionContext

from micromegas.query.guard import placeholders
from micromegas.query.listing_plan import listing_scan, message_fields, serialized_column_types
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP

# Field numbers of datafusion.proto in the pinned release; a test notices when they move.
_PLACEHOLDER_NODE = 34
_CAST_NODE = 11
_NODE_ID, _NODE_TYPE = 1, 2
_CAST_OPERAND, _CAST_TYPE = 1, 2
_LENGTH_DELIMITED = 2

_TYPES = (
    pa.bool_(),
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.date32(),
    pa.timestamp("ns"),
    TIMESTAMP,
    pa.binary(),
    pa.utf8(),
    DICT_STRING,
)


class ParameterTypes:
    """Reads the types of placeholders off plans. Thread-safe."""

    def __init__(self, context: SessionContext) -> None:
        schema = pa.schema([pa.field(f"column{number}", each) for number, each in enumerate(_TYPES)])
        # The engine itself tells how it writes each type.
        serialized = serialized_column_types(listing_scan(context, schema))
        self._types = dict(zip(serialized, _TYPES, strict=True))

    def schema_of(self, statement: str, plan: LogicalPlan) -> pa.Schema:
        """One nullable field per placeholder of the statement, named without the `$`."""
        names = placeholders(statement)
        types: dict[str, pa.DataType] = {}
        if names:
            try:
                serialized = plan.to_bytes()
            except Exception:
                # Not every plan can be serialized (a function of ours over a lake can't): then nothing is known.
                serialized = b""
            for name, written in _placeholder_nodes(serialized):
                data_type = self._types.get(written, pa.utf8())
                types.setdefault(name, pa.utf8() if data_type == DICT_STRING else data_type)
        return pa.schema([pa.field(name, types.get(name, pa.utf8())) for name in names])


def _placeholder_nodes(message: bytes) -> Iterator[tuple[str, bytes]]:
    """`(name, serialized type)` of the typed placeholders anywhere in a serialized plan.

    What lies at a field may be a text as well as a message: everything that can be read as a message is looked through.
    """
    try:
        fields = list(message_fields(message))
    except (ValueError, IndexError):
        return
    for number, wire_type, _, content in fields:
        if wire_type != _LENGTH_DELIMITED or len(content) < 2:
            continue
        if number == _PLACEHOLDER_NODE and (node := _node(content)) is not None:
            yield node
        if number == _CAST_NODE and (cast := _cast_node(content)) is not None:
            yield cast
        yield from _placeholder_nodes(content)


def _node(content: bytes) -> tuple[str, bytes] | None:
    parts = _parts(content)
    name = _name(parts)
    return (name, parts[_NODE_TYPE]) if name is not None and _NODE_TYPE in parts else None


def _cast_node(content: bytes) -> tuple[str, bytes] | None:
    parts = _parts(content)
    name = _name(_parts(_parts(parts.get(_CAST_OPERAND, b"")).get(_PLACEHOLDER_NODE, b"")))
    return (name, parts[_CAST_TYPE]) if name is not None and _CAST_TYPE in parts else None


def _name(parts: dict[int, bytes]) -> str | None:
    name = parts.get(_NODE_ID, b"")
    return name[1:].decode("utf-8", "replace") if name.startswith(b"$") else None


def _parts(content: bytes) -> dict[int, bytes]:
    """Contents of a message's fields by number; nothing when it is no message."""
    try:
        return {number: part for number, _, _, part in message_fields(content)}
    except (ValueError, IndexError):
        return {}
