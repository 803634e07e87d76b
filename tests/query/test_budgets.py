"""One query can't take what all queries have, and gives back what it had however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from query.asking import answer, ask, one
from query.traffic import MadeTraffic

from micromegas.config import QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError, QueryRequest

MIB = 1024 * 1024
# Some 80 MiB that can't be spilled.
HUNGRY = (
    "SELECT length(array_to_string(array_agg(repeat('x', 100) || value::text), '')) FROM generate_series(1, 500000)"
)


@contextmanager
def engine_with(lake: Lake, memory_mib: int, query_mib: int | None = None) -> Iterator[QueryEngine]:
    settings = QuerySettings(
        memory_bytes=memory_mib * MIB, query_memory_bytes=None if query_mib is None else query_mib * MIB
    )
    opened = QueryEngine(lake, settings)
    yield opened
    assert [share.queries for share in opened._sessions._shares] == [0] * len(opened._sessions._shares)
    opened.close()


@pytest.mark.parametrize(
    ("memory", "query", "is_enough"), [(64, None, False), (512, 32, False), (512, None, True), (256, 512, True)]
)
def test_what_one_query_may_take(local_lake: Lake, memory: int, query: int | None, is_enough: bool) -> None:
    with engine_with(local_lake, memory, query) as engine:
        if is_enough:
            assert one(ask(engine, HUNGRY)) > 50_000_000
        else:
            with pytest.raises(QueryError, match="narrow it, or raise the server's limit") as failure:
                ask(engine, HUNGRY)
            assert failure.value.kind == "exhausted"
        assert one(ask(engine, "SELECT 1")) == 1


def test_rows_of_many_files_are_sorted_in_little_memory(local_lake: Lake) -> None:
    """As many files as a month of partitions or a process of many threads may have, each a stream of the scan."""
    series = " UNION ALL ".join(f"SELECT value * 40 + {each} AS n FROM generate_series(1, 20000)" for each in range(40))
    sql = f"SELECT n % 1009 AS k, n, repeat('z', 100) AS t FROM ({series}) ORDER BY k, n"
    with engine_with(local_lake, 64) as engine:
        table = ask(engine, sql)
    assert table.num_rows == 800_000
    keys = table["k"].to_numpy() * 10_000_000 + table["n"].to_numpy()
    assert (keys[1:] > keys[:-1]).all()


def test_others_go_on_while_one_has_all_it_may_take(local_lake: Lake) -> None:
    MadeTraffic(local_lake).logs("a", "b", "c")
    sorting = "SELECT value, repeat('y', 200) t FROM generate_series(1, 100000) ORDER BY value % 1000, value"

    async def scenario(engine: QueryEngine) -> None:
        # It holds its rows until they are fetched.
        first = await engine.execute(QueryRequest(sorting))
        assert (await anext(first)).num_rows > 0
        refused = await asyncio.gather(answer(engine, HUNGRY), return_exceptions=True)
        assert isinstance(refused[0], QueryError)
        rows = await answer(engine, "SELECT count(*), count(DISTINCT msg) FROM log_entries")
        assert rows.to_pylist()[0].popitem()[1] == 3
        left = [batch.num_rows async for batch in first]
        assert sum(left) > 0

    with engine_with(local_lake, 96, 48) as engine:
        asyncio.run(scenario(engine))


def test_places_come_back_however_queries_end(local_lake: Lake) -> None:
    MadeTraffic(local_lake).logs("a")
    endless = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 3"

    async def scenario(engine: QueryEngine) -> None:
        running = [asyncio.create_task(answer(engine, endless)) for _ in range(3)]
        await asyncio.sleep(0.1)
        in_use = [share.queries for share in engine._sessions._shares]
        assert sorted(in_use) == [0, 1, 1, 1]
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for sql in ("SELECT nope", "SELECT * FROM log_entries", "SELECT 1 / (value - 3) FROM generate_series(1, 5)"):
            await asyncio.gather(answer(engine, sql), return_exceptions=True)
        unread = await engine.execute(QueryRequest("SELECT * FROM log_entries"))
        await unread.aclose()
        await unread.aclose()
        given_up = [asyncio.create_task(answer(engine, "SELECT * FROM log_entries")) for _ in range(50)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.wait(given_up)
        while any(share.queries for share in engine._sessions._shares):
            await asyncio.sleep(0.01)

    with engine_with(local_lake, 256, 64) as engine:
        asyncio.run(asyncio.wait_for(scenario(engine), 60.0))
