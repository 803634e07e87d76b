"""Asking the engine from synchronous tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import pytest

from micromegas.query import QueryEngine, QueryError, QueryRequest


async def answer(engine: QueryEngine, sql: str, **request: Any) -> pa.Table:
    """All rows of a statement."""
    stream = await engine.execute(QueryRequest(sql, **request))
    batches = [batch async for batch in stream]
    return pa.Table.from_batches(batches, stream.schema)


def ask(engine: QueryEngine, sql: str, **request: Any) -> pa.Table:
    """All rows of a statement, from a loop of its own."""
    return asyncio.run(answer(engine, sql, **request))


def refusal(engine: QueryEngine, sql: str, **request: Any) -> QueryError:
    """What the engine says against a statement, while it plans it or reads its rows."""
    with pytest.raises(QueryError) as refused:
        ask(engine, sql, **request)
    return refused.value


def column(table: pa.Table, name: str | int = 0) -> list[Any]:
    """A column's values; timestamps as ns."""
    values = table.column(name)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("ns")).cast(pa.int64())
    return list(values.to_pylist())


def one(table: pa.Table) -> Any:
    """The only value."""
    assert (table.num_rows, table.num_columns) == (1, 1)
    return column(table)[0]
