"""Answers to examples, and types, as the pages of the documentation show them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from micromegas.query import QueryEngine, QueryRequest
from micromegas.query.functions.histograms import HISTOGRAM
from micromegas.query.functions.scalar import ANY_JSONB


def answer(engine: QueryEngine, sql: str) -> pa.Table:
    """All rows of a statement, over all times, as an administrator gets them."""
    return asyncio.run(_answer(engine, sql))


async def _answer(engine: QueryEngine, sql: str) -> pa.Table:
    stream = await engine.execute(QueryRequest(sql, begin=0, end=2**62, administers=True))
    return pa.Table.from_batches([batch async for batch in stream], stream.schema)


def shown(table: pa.Table) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(map(_cell, table.schema.names))} |"
    yield f"|{'---|' * table.num_columns}"
    for row in zip(*(column.to_pylist() for column in _readable(table).columns), strict=True):
        yield f"| {' | '.join(map(_cell, row))} |"


def _readable(table: pa.Table) -> pa.Table:
    """Times as texts: Python knows no nanoseconds."""
    columns = [column.cast(pa.string()) if pa.types.is_temporal(column.type) else column for column in table.columns]
    return pa.table(columns, table.schema.names)


def _cell(value: Any) -> str:
    match value:
        case None:
            text = "NULL"
        case bytes():
            text = f"{len(value)} bytes" if len(value) > 32 else "0x" + value.hex()
        case dict():
            text = "{" + ", ".join(f"{key}: {_cell(each)}" for key, each in value.items()) + "}"
        case list():
            text = "[" + ", ".join(map(_cell, value)) + "]"
        case bool():
            text = str(value).lower()
        case _:
            text = str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def type_name(data_type: pa.DataType) -> str:
    """What people call a type: dictionaries are an encoding, not a type."""
    if data_type == ANY_JSONB or data_type == pa.dictionary(pa.int32(), pa.binary()):
        return "jsonb"
    if data_type == HISTOGRAM:
        return "histogram"
    if pa.types.is_dictionary(data_type):
        return type_name(data_type.value_type)
    if pa.types.is_list(data_type):
        return f"list of {type_name(data_type.value_type)}"
    if pa.types.is_struct(data_type):
        return "(" + ", ".join(f"{field.name} {type_name(field.type)}" for field in data_type) + ")"
    return {"string": "text", "double": "double"}.get(str(data_type), str(data_type).split("[")[0])
