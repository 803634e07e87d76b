"""asyncpg, SQLAlchemy and pandas: binary results, types learned from the server, reflection, data frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pandas
import pytest
import sqlalchemy
from postgres_gateway.gateway import Asked
from sqlalchemy import MetaData, Table, func, inspect, select, text


def with_asyncpg(asked: Asked, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=asked.gateway.port, user="anybody", database="micromegas", timeout=60
        )
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_asyncpg_fetches_with_parameters_that_the_server_types(asked: Asked) -> None:
    async def work(connection: Any) -> None:
        own = "SELECT time, level, msg, properties FROM log_entries WHERE process_id = $1"
        rows = await connection.fetch(f"{own} ORDER BY time LIMIT $2", asked.process_id, 3)
        assert [row["msg"] for row in rows] == asked.messages[:3]
        first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asked.first_time // 1000)
        assert rows[0]["time"] == first
        assert rows[0]["properties"].startswith("{")
        later = await connection.fetch(
            f"{own} AND time >= $2 AND level = any($3)", asked.process_id, first, [0, 1, 2, 3, 4, 5]
        )
        assert len(later) == len(asked.messages)
        texts = await connection.fetchval(
            "SELECT count(*) FROM log_entries WHERE process_id = $1 AND msg = any($2)", asked.process_id, asked.messages
        )
        assert texts == len(asked.messages)
        assert await connection.fetchval("SELECT max(value) FROM measures WHERE value < $1", 1e-8) == 1e-9
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
        assert await connection.fetchval("SELECT arrow_cast(12.5, 'Decimal128(10, 2)'), arrow_typeof(1)") == Decimal(
            "12.50"
        )
        assert await connection.fetchval("SELECT make_array('a', NULL), arrow_typeof(1)") == ["a", None]
        tags = await connection.fetchval("SELECT tags FROM streams WHERE process_id = $1 LIMIT 1", asked.process_id)
        assert isinstance(tags, list)

    with_asyncpg(asked, work)


def test_asyncpg_cursors_transactions_and_the_reset_of_pools(asked: Asked) -> None:
    async def work(connection: Any) -> None:
        async with connection.transaction(readonly=True):
            seen = [
                record["msg"]
                async for record in connection.cursor(
                    "SELECT msg FROM log_entries WHERE process_id = $1 ORDER BY time", asked.process_id, prefetch=2
                )
            ]
            assert seen == asked.messages
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.fetch("SELECT nosuch FROM log_entries")
        await connection.execute("SET statement_timeout = 20")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.fetch("SELECT pg_sleep(100)")
        await connection.reset()
        assert await connection.fetchval("SELECT count(*) > 0 FROM log_entries")
        statement = await connection.prepare("SELECT msg, level FROM log_entries WHERE level >= $1")
        assert [parameter.name for parameter in statement.get_parameters()] == ["int4"]
        assert [(column.name, column.type.name) for column in statement.get_attributes()] == [
            ("msg", "text"),
            ("level", "int4"),
        ]
        content: list[bytes] = []

        async def take(part: bytes) -> None:
            content.append(part)

        await connection.copy_from_query("SELECT count(*) FROM log_entries", output=take)
        assert int(b"".join(content)) > 0

    with_asyncpg(asked, work)


@pytest.fixture
def sql_engine(asked: Asked) -> Any:
    address = f"postgresql+psycopg://anybody@127.0.0.1:{asked.gateway.port}/micromegas"
    engine = sqlalchemy.create_engine(address)
    yield engine
    engine.dispose()


def test_sqlalchemy_reflects_and_asks(asked: Asked, sql_engine: Any) -> None:
    described = inspect(sql_engine)
    assert {"log_entries", "measures", "processes"} <= set(described.get_table_names())
    assert "thread_spans" in described.get_table_names(schema="instances")
    assert described.get_pk_constraint("log_entries")["constrained_columns"] == []
    assert described.get_foreign_keys("log_entries") == []
    assert described.get_indexes("log_entries") == []
    logs = Table("log_entries", MetaData(), autoload_with=sql_engine)
    assert str(logs.c.time.type) == "TIMESTAMP"
    assert not logs.c.msg.nullable
    with sql_engine.connect() as connection:
        own = select(logs.c.msg).where(logs.c.process_id == asked.process_id).order_by(logs.c.time)
        assert [row.msg for row in connection.execute(own)] == asked.messages
        assert [row.msg for row in connection.execute(own.limit(2).offset(1))] == asked.messages[1:3]
        chosen = own.where(logs.c.msg.in_(["hello", "öne ☃"]))
        assert len(connection.execute(chosen).all()) == 2
        counted = select(logs.c.level, func.count().label("n")).group_by(logs.c.level).order_by(logs.c.level)
        assert all(row.n > 0 for row in connection.execute(counted))
        since = select(func.count()).where(logs.c.time > datetime(2000, 1, 1, tzinfo=UTC))
        assert connection.execute(since).scalar_one() > 0


def test_pandas_reads_sql(asked: Asked, sql_engine: Any) -> None:
    frame = pandas.read_sql(
        text("SELECT time, value, name FROM measures WHERE process_id = :process ORDER BY time"),
        sql_engine,
        params={"process": asked.process_id},
    )
    assert frame["value"].tolist() == asked.values
    assert str(frame["time"].dtype).startswith("datetime64")
    pieces = pandas.read_sql(text("SELECT msg FROM log_entries"), sql_engine, chunksize=2)
    assert sum(len(piece) for piece in pieces) >= len(asked.messages)
    whole = pandas.read_sql_table("processes", sql_engine)
    assert asked.process_id in whole["process_id"].tolist()
