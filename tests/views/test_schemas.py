"""The schemas are a contract with every client, their hashes one with every stored partition."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas.lake import BLOCK_RECORD_SCHEMA
from micromegas.views.arrow_types import (
    DICT_JSONB,
    DICT_STRING,
    TIMESTAMP,
    canonical_schema,
    canonical_type,
    schema_hash,
)
from micromegas.views.blocks import SCHEMA as BLOCKS_SCHEMA
from micromegas.views.catalogue import VIEW_SETS

TEXT, JSONB, TIME = "dictionary(int32,utf8)", "dictionary(int32,binary)", "timestamp(ns,+00:00)"
OF_PROCESS = (
    f"process_id:{TEXT} stream_id:{TEXT} block_id:{TEXT} insert_time:{TIME} "
    f"exe:{TEXT} username:{TEXT} computer:{TEXT} time:{TIME} target:{TEXT}"
)
SCHEMAS = {
    "log_entries": f"{OF_PROCESS} level:int32 msg:utf8 properties:{JSONB} process_properties:{JSONB}",
    "measures": f"{OF_PROCESS} name:{TEXT} unit:{TEXT} value:float64 properties:{JSONB} process_properties:{JSONB}",
    "thread_spans": "id:int64 parent:int64 depth:uint32 hash:uint32 "
    f"begin:{TIME} end:{TIME} duration:int64 name:{TEXT} target:{TEXT} filename:{TEXT} line:uint32",
    "async_events": f"stream_id:{TEXT} block_id:{TEXT} time:{TIME} event_type:{TEXT} span_id:int64 "
    f"parent_span_id:int64 depth:uint32 hash:uint32 name:{TEXT} filename:{TEXT} target:{TEXT} line:uint32",
    "async_spans": f"stream_id:{TEXT} span_id:int64 parent_span_id:int64 depth:uint32 hash:uint32 begin:{TIME} "
    f"end:{TIME} duration:int64 state:{TEXT} name:{TEXT} target:{TEXT} filename:{TEXT} line:uint32",
    "processes": "process_id:utf8? exe:utf8? username:utf8? realname:utf8? computer:utf8? distro:utf8? cpu_brand:utf8? "
    f"tsc_frequency:int64? start_time:{TIME}? start_ticks:int64? insert_time:{TIME}? parent_process_id:utf8? "
    f"properties:{JSONB}? last_update_time:{TIME}? last_block_end_ticks:int64? last_block_end_time:{TIME}?",
    "streams": "stream_id:utf8? process_id:utf8? dependencies_metadata:binary? objects_metadata:binary? "
    f"tags:list(tag:utf8)? properties:{JSONB}? insert_time:{TIME}? format:utf8? last_update_time:{TIME}?",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_as_specified(name: str) -> None:
    assert canonical_schema(VIEW_SETS[name].schema).split("\n") == SCHEMAS[name].split(" ")


def test_blocks_have_the_columns_of_the_metadata() -> None:
    assert BLOCKS_SCHEMA.names == BLOCK_RECORD_SCHEMA.names
    for ours, stored in zip(BLOCKS_SCHEMA, BLOCK_RECORD_SCHEMA, strict=True):
        assert ours.nullable == stored.nullable
        assert ours.type in (stored.type, DICT_JSONB)


def test_the_hash_changes_with_whatever_matters() -> None:
    schema = pa.schema([pa.field("time", TIMESTAMP, nullable=False), pa.field("name", DICT_STRING)])
    base = schema_hash(schema, 1)
    assert len(base) == 32
    assert base == schema_hash(schema.with_metadata({"written": "by"}), 1)
    others = {
        schema_hash(schema, 2),
        schema_hash(pa.schema([schema[1], schema[0]]), 1),
        schema_hash(pa.schema([schema[0].with_nullable(True), schema[1]]), 1),
        schema_hash(pa.schema([schema[0], schema[1].with_name("target")]), 1),
        schema_hash(pa.schema([schema[0].with_type(pa.timestamp("ns", "UTC")), schema[1]]), 1),
        schema_hash(pa.schema([schema[0]]), 1),
    }
    assert len(others) == 6
    assert base not in others


def test_the_hash_is_the_same_for_ever() -> None:
    schema = pa.schema([pa.field("time", TIMESTAMP, nullable=False), pa.field("name", DICT_STRING)])
    assert schema_hash(schema, 1).hex() == "e7b6ebe84ed4462b26f2496ad40aff85d1617b7ae862edcdbb183e35757dfd44"


def test_unknown_types_have_no_text() -> None:
    with pytest.raises(TypeError, match="no canonical text"):
        canonical_type(pa.large_string())
