"""The Arrow types of view schemas, and the schema hash. Must never depend on how pyarrow prints a type."""

from __future__ import annotations

import hashlib

import pyarrow as pa

# The offset is spelled `+00:00`, not `UTC`: Arrow takes these for two different types and clients compare schemas.
TIMESTAMP = pa.timestamp("ns", tz="+00:00")
DICT_STRING = pa.dictionary(pa.int32(), pa.utf8())
DICT_JSONB = pa.dictionary(pa.int32(), pa.binary())
TAGS = pa.list_(pa.field("tag", pa.utf8(), nullable=False))

_LEAVES = {
    pa.bool_(): "bool",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint8(): "uint8",
    pa.uint16(): "uint16",
    pa.uint32(): "uint32",
    pa.uint64(): "uint64",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.date32(): "date32",
    pa.utf8(): "utf8",
    pa.binary(): "binary",
}


def required(name: str, data_type: pa.DataType) -> pa.Field:
    """A column without NULLs."""
    return pa.field(name, data_type, nullable=False)


def optional(name: str, data_type: pa.DataType) -> pa.Field:
    """A column that may hold NULLs."""
    return pa.field(name, data_type, nullable=True)


LEADING_COLUMNS = (
    required("process_id", DICT_STRING),
    required("stream_id", DICT_STRING),
    required("block_id", DICT_STRING),
    required("insert_time", TIMESTAMP),
    required("exe", DICT_STRING),
    required("username", DICT_STRING),
    required("computer", DICT_STRING),
)
"""What rows that were made of single events begin with: whence the event came."""


def canonical_type(data_type: pa.DataType) -> str:
    """Text of an Arrow type, the same in all versions of the libraries; `TypeError` for a type that no view uses."""
    if data_type in _LEAVES:
        return _LEAVES[data_type]
    if pa.types.is_timestamp(data_type):
        return f"timestamp({data_type.unit},{data_type.tz})"
    if pa.types.is_dictionary(data_type):
        return f"dictionary({canonical_type(data_type.index_type)},{canonical_type(data_type.value_type)})"
    if pa.types.is_fixed_size_binary(data_type):
        return f"binary[{data_type.byte_width}]"
    if pa.types.is_list(data_type):
        return f"list({canonical_field(data_type.value_field)})"
    if pa.types.is_struct(data_type):
        return f"struct({','.join(canonical_field(field) for field in data_type)})"
    raise TypeError(f"no canonical text for the arrow type {data_type}")


def canonical_field(field: pa.Field) -> str:
    """`name:type` followed by `?` where NULLs are allowed."""
    return f"{field.name}:{canonical_type(field.type)}{'?' if field.nullable else ''}"


def canonical_schema(schema: pa.Schema) -> str:
    """One field per line, in order."""
    return "\n".join(canonical_field(field) for field in schema)


def schema_hash(schema: pa.Schema, decoder_version: int) -> bytes:
    """SHA-256 of the canonical schema and the version of the code that makes the rows.

    Partitions with another hash that the view set does not list as an older one are invisible to queries and are built
    again.
    """
    return hashlib.sha256(f"{canonical_schema(schema)}\ndecoder {decoder_version}".encode()).digest()
