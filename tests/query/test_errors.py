"""What is refused, how it is said, and that the engine survives it."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from query.asking import answer, ask, column, one, refusal
from query.traffic import MadeTraffic

from micromegas.config import QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError, QueryRequest
from micromegas.query.errors import MAX_MESSAGE
from micromegas.query.guard import checked_statement
from micromegas.query.stream import QueryStream

UNKNOWN_ID = "01234567-89ab-cdef-0123-456789abcdef"

REFUSED = {
    "SELEC 1": "invalid",
    "": "invalid",
    ";": "invalid",
    "-- nothing": "invalid",
    "SELECT nope FROM log_entries": "invalid",
    "SELECT * FROM nope": "invalid",
    "SELECT nope()": "invalid",
    "SELECT 1; SELECT 2": "unimplemented",
    "SELECT * FROM view_instance('nope', 'global')": "invalid",
    "SELECT * FROM view_instance('log_entries', 'not-an-id')": "invalid",
    "SELECT * FROM view_instance('thread_spans', 'global')": "invalid",
    "SELECT * FROM view_instance('async_events', 'global')": "invalid",
    "SELECT * FROM view_instance('processes', 'global')": "invalid",
    f"SELECT * FROM view_instance('log_entries', '{UNKNOWN_ID}')": "invalid",
    f"SELECT * FROM view_instance('thread_spans', '{UNKNOWN_ID}') WHERE begin > '2020-01-01'": "invalid",
    "SELECT * FROM view_instance('log_entries')": "invalid",
    "SELECT * FROM view_instance()": "invalid",
    "SELECT * FROM view_instance('log_entries', 'global', 'more')": "invalid",
    "SELECT * FROM view_instance(1, 2)": "invalid",
    "SELECT * FROM view_instance('log_entries', $1)": "invalid",
    "SELECT p.exe FROM processes p, LATERAL view_instance('log_entries', p.process_id)": "invalid",
    "SELECT * FROM list_partitions(1)": "invalid",
    "SELECT * FROM '/etc/passwd'": "invalid",
    'SELECT * FROM "/etc/passwd"': "invalid",
    "SELECT CAST('x' AS BIGINT)": "invalid",
    "SELECT 1 / 0": "invalid",
    f"SELECT get_payload('{UNKNOWN_ID}', '{UNKNOWN_ID}', '{UNKNOWN_ID}')": "invalid",
}

WRITES = [
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "DROP VIEW log_entries",
    "INSERT INTO log_entries SELECT * FROM log_entries",
    "DELETE FROM log_entries",
    "UPDATE processes SET exe = 'x'",
    "COPY (SELECT 1) TO '{path}'",
    "EXPLAIN ANALYZE INSERT INTO processes SELECT * FROM processes",
    "SET datafusion.execution.batch_size = 1",
    "BEGIN",
    "PREPARE p AS SELECT 1",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_wrong_is_refused_in_few_clean_words(local_lake: Lake, local_engine: QueryEngine, sql: str) -> None:
    MadeTraffic(local_lake).logs("a")
    error = refusal(local_engine, sql)
    assert error.kind == REFUSED[sql]
    assert 0 < len(error.message) <= MAX_MESSAGE
    for revealing in ("Traceback", ".py", ".rs", "site-packages", "/home", "/tmp", "/work"):
        assert revealing not in error.message
    assert one(ask(local_engine, "SELECT count(*) FROM log_entries")) == 1


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_can_be_written(local_lake: Lake, local_engine: QueryEngine, tmp_path: Path, sql: str) -> None:
    MadeTraffic(local_lake).logs("a")
    target = tmp_path / "written"
    refusal(local_engine, sql.format(path=target))
    assert not target.exists()
    assert one(ask(local_engine, "SELECT count(*) FROM log_entries")) == 1
    assert ask(local_engine, "SELECT * FROM information_schema.tables WHERE table_name IN ('t', 'v')").num_rows == 0


def test_unknown_instances_are_named(local_engine: QueryEngine) -> None:
    sql = f"SELECT * FROM view_instance('log_entries', '{UNKNOWN_ID.upper()}')"
    assert refusal(local_engine, sql).message == f"unknown process {UNKNOWN_ID}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "+".join(["1"] * 100_000),
        "SELECT " + "1 " + "OR true " * 100_000,
        "SELECT " + "- " * 100_000 + "1",
        "SELECT " + "+-" * 100_000 + "1",
        "SELECT " + "NOT " * 100_000 + "true",
        "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
        "SELECT " + "abs(" * 1000 + "1" + ")" * 1000,
        "SELECT " + "[" * 100_000 + "]" * 100_000,
        "SELECT a" + "[1]" * 100_000 + " FROM (SELECT 1 AS a)",
        "SELECT a" + ".b" * 100_000 + " FROM (SELECT 1 AS a)",
        "SELECT 1" + "::int" * 100_000,
        "SELECT 1 " + "UNION ALL SELECT 1 " * 50_000,
        "SELECT * FROM processes " + ", processes" * 50_000,
        "SELECT * FROM processes " + "NATURAL JOIN processes " * 20_000,
        "SELECT " + "CASE WHEN true THEN " * 20_000 + "1" + " END" * 20_000,
        "SELECT " + "/*" * 300_000,
        "SELECT 1" + " NOTNULL" * 100_000,
        "SELECT 'a'" + " RLIKE 'a'" * 100_000,
        "SELECT 'a'" + " REGEXP 'a'" * 100_000,
        "SELECT 1" + " MEMBER OF(1)" * 50_000,
        "SELECT " + "INTERVAL " * 2000 + "'1 day'",
        "EXPLAIN " * 2000 + "SELECT 1",
        "EXPLAIN ANALYZE " * 2000 + "SELECT 1",
        "SELECT " + "'" * 999_999,
        "SELECT 1 AS a" + " " * 2_000_000,
        "SELECT '\0'",
    ],
    ids=lambda sql: sql[:40],
)
def test_what_would_overflow_the_stack_is_refused(local_engine: QueryEngine, sql: str) -> None:
    assert refusal(local_engine, sql).kind == "invalid"
    with pytest.raises(QueryError):
        local_engine.describe(sql)


@pytest.mark.parametrize(
    "before",
    [
        "1 AS a --x\r,",
        "1 AS a$b$,",
        "1a$b$,",
        "1 AS a€$b$,",
        "1 AS \u00aa$b$,",
        "$a1$ ' $a1$ AS a,",
        "$1$ ' $1$ AS a,",
        "$é$ ' $é$ AS a,",
    ],
)
def test_what_the_engine_runs_is_counted_behind_comments_names_and_quoted_texts(
    local_engine: QueryEngine, before: str
) -> None:
    assert len(local_engine.describe(f"SELECT {before} 1 + 1 AS c").schema) == 2
    with pytest.raises(QueryError, match="operators"):
        checked_statement(f"SELECT {before} " + "+".join(["1"] * 2500))


DOUBLED = "WITH c0 AS (SELECT process_id AS x FROM processes)"
DOUBLED += "".join(f", c{n} AS (SELECT x FROM c{n - 1} UNION ALL SELECT x FROM c{n - 1})" for n in range(1, 30))
DOUBLED += " SELECT count(*) FROM c29"


@pytest.mark.parametrize(
    "sql",
    [
        DOUBLED,
        DOUBLED.replace(" AS (", " (x) AS NOT MATERIALIZED ("),
        re.sub(r"\b(c\d+)\b", r'"\1"', DOUBLED),
        re.sub(r"FROM (c\d+)", r"FROM (\1 /* (*/ AS t)", DOUBLED),
        "SELECT count(*) FROM processes GROUP BY CUBE(" + ", ".join(str(n) for n in range(27)) + ")",
        "SELECT approx_percentile_cont(tsc_frequency, 0.5, 1000000 * 1000000) FROM processes",
        "SELECT approx_percentile_cont(0.5, 1000000000000) WITHIN GROUP (ORDER BY tsc_frequency) FROM processes",
    ],
    ids=lambda sql: sql[:40],
)
def test_what_would_take_all_memory_is_refused(local_engine: QueryEngine, sql: str) -> None:
    assert refusal(local_engine, sql).kind == "invalid"


def test_names_of_with_and_columns_may_be_used_often(local_engine: QueryEngine) -> None:
    names = ["a", "b", "c", "d"]
    sql = "WITH x AS (SELECT 1 AS x)" + "".join(
        f", {name} AS (SELECT s.x, s.x + s.x AS {name} FROM {before} AS s JOIN {before} AS t USING (x))"
        for before, name in zip(["x", *names], names, strict=False)
    )
    assert column(ask(local_engine, sql + " SELECT d FROM d")) == [2]
    assert one(ask(local_engine, "SELECT approx_percentile_cont(value, 0.5, 1000) FROM generate_series(3, 3)")) == 3
    assert ask(local_engine, "SELECT INTERVAL '1 day' AS interval GROUP BY CUBE(interval)").num_rows > 0


def test_large_but_flat_statements_run(local_engine: QueryEngine) -> None:
    numbers = ", ".join(str(number) for number in range(20_000))
    assert one(ask(local_engine, f"SELECT 7 IN ({numbers})")) is True
    symbols = "+-" * 10_000
    assert one(ask(local_engine, f"SELECT '{symbols}(((' /* {symbols} */ -- {symbols}")) == f"{symbols}((("
    assert one(ask(local_engine, "SELECT '-- not ; a /* comment';; ; -- ;\n /* ; */ ;")) == "-- not ; a /* comment"


def test_begin_and_end_are_plain_names(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.commit(traffic.thread.spans("(())"))
    spans = f"view_instance('thread_spans', '{traffic.thread.stream_id}')"
    for sql in (
        f"SELECT begin, end FROM {spans}",
        f"SELECT depth, end FROM {spans} ORDER BY begin, end",
        f"SELECT end - begin FROM {spans}",
        f"SELECT CASE WHEN depth > 0 THEN end ELSE begin END FROM {spans} WHERE end > begin",
        f"SELECT s.begin, s.end FROM {spans} s WHERE s.end IS NOT NULL",
    ):
        assert ask(local_engine, sql, begin=0, end=2**62).num_rows > 0, sql


def test_parameters_are_bound_and_described(local_lake: Lake, local_engine: QueryEngine) -> None:
    MadeTraffic(local_lake).logs("a", "b")
    sql = "SELECT msg FROM log_entries WHERE msg = $1 AND time > $2"
    described = local_engine.describe(sql)
    time_type = pa.timestamp("ns", "+00:00")
    assert described.parameter_schema.equals(pa.schema([("1", pa.utf8()), ("2", time_type)]))
    kinds = local_engine.describe("SELECT $2 + level, $1, CAST($name AS DOUBLE), '$4' FROM log_entries -- $5")
    assert kinds.parameter_schema.equals(pa.schema([("1", pa.utf8()), ("2", pa.int32()), ("name", pa.float64())]))
    assert described.schema.field("msg") == pa.field("msg", pa.utf8(), nullable=False)
    values = {"1": pa.scalar("b"), "2": pa.scalar("2020-01-01T00:00:00Z")}
    assert column(ask(local_engine, sql, parameters=values)) == ["b"]
    assert refusal(local_engine, sql).kind == "invalid"
    assert refusal(local_engine, sql, parameters={"1": pa.scalar("b")}).kind == "invalid"
    injected = {"1": pa.scalar("' OR '1' = '1"), "2": values["2"]}
    assert column(ask(local_engine, sql, parameters=injected)) == []


def test_the_limit_of_the_request_caps_every_statement(local_lake: Lake, local_engine: QueryEngine) -> None:
    MadeTraffic(local_lake).logs(*"abcdef")
    for sql, rows in (
        ("SELECT * FROM log_entries", 2),
        ("SELECT * FROM log_entries LIMIT 5", 2),
        ("SELECT * FROM log_entries LIMIT 1", 1),
        ("SHOW TABLES", 2),
        ("EXPLAIN SELECT 1", 2),
        ("DESCRIBE log_entries", 2),
    ):
        assert ask(local_engine, sql, limit=2).num_rows == rows, sql
    assert ask(local_engine, "SELECT * FROM log_entries", limit=0).num_rows == 0
    assert refusal(local_engine, "SELECT 1", limit=-1).kind == "invalid"


def engine_with(lake: Lake, **settings: object) -> QueryEngine:
    return QueryEngine(lake, QuerySettings(**settings))  # type: ignore[arg-type]


def test_answers_beyond_a_setting_are_refused(local_lake: Lake) -> None:
    MadeTraffic(local_lake).logs(*"abcdef")
    engine = engine_with(local_lake, max_result_rows=5)
    try:
        assert ask(engine, "SELECT * FROM log_entries LIMIT 5").num_rows == 5
        assert refusal(engine, "SELECT * FROM log_entries").kind == "exhausted"
    finally:
        engine.close()


def test_a_tail_beyond_a_setting_is_refused(local_lake: Lake) -> None:
    traffic = MadeTraffic(local_lake)
    for _ in range(20):
        traffic.logs("x" * 1000)
    engine = engine_with(local_lake, tail_bytes=4000)
    try:
        error = refusal(engine, "SELECT count(*) FROM log_entries")
        assert error.kind == "exhausted"
        assert "log_entries" in error.message
        assert one(ask(engine, "SELECT count(*) FROM measures")) == 0
    finally:
        engine.close()


def test_memory_beyond_a_setting_is_refused(local_lake: Lake) -> None:
    engine = engine_with(local_lake, memory_bytes=1024 * 1024)
    try:
        sql = "SELECT array_agg(repeat('x', 100) || value::text) FROM generate_series(1, 1000000)"
        assert refusal(engine, sql).kind == "exhausted"
        assert one(ask(engine, "SELECT 1")) == 1
    finally:
        engine.close()


def test_texts_beyond_a_setting_are_refused(local_lake: Lake) -> None:
    engine = engine_with(local_lake, memory_bytes=16 * 1024 * 1024)
    try:
        assert one(ask(engine, "SELECT length(repeat('x', 5000000))")) == 5_000_000
        for sql in (
            "SELECT length(repeat('x', 9000000))",
            "SELECT length(lpad('x', 400000000))",
            "SELECT length(replace(msg, 'x', repeat('y', 5000000))) FROM (VALUES ('xxx')) AS t(msg)",
            "SELECT length(repeat('x', $1))",
        ):
            error = refusal(engine, sql, parameters={"1": pa.scalar(9_000_000)} if "$1" in sql else {})
            assert error.kind == "exhausted"
            assert "needs more memory" in error.message
            assert "at most 8388608" in error.message
        # what no check of ours knows ends where the engine's columns do, in a panic of which it tells nothing
        wide = ", ".join(["repeat('x', 2048)"] * 40)
        assert refusal(engine, f"SELECT concat({wide}), value FROM generate_series(1, 40000)").kind == "internal"
        assert one(ask(engine, "SELECT 1")) == 1
    finally:
        engine.close()


def test_a_query_beyond_its_time_ends(local_lake: Lake) -> None:
    engine = engine_with(local_lake, statement_timeout_s=0.5)
    try:
        sql = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 3"
        error = refusal(engine, sql)
        assert (error.kind, error.message) == ("exhausted", "the query took longer than 0.5 s")
        assert one(ask(engine, "SELECT 1")) == 1
    finally:
        engine.close()


def test_a_query_can_be_cancelled_and_closed_at_any_time(local_lake: Lake, local_engine: QueryEngine) -> None:
    async def scenario() -> None:
        sql = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 3"
        running = asyncio.create_task(answer(local_engine, sql))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        stream = await local_engine.execute(QueryRequest("SELECT * FROM generate_series(1, 1000000)"))
        assert (await anext(stream)).num_rows > 0
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        unread = await local_engine.execute(QueryRequest("SELECT 1"))
        await unread.aclose()
        assert (await answer(local_engine, "SELECT 1")).num_rows == 1

    asyncio.run(scenario())


class HeldTail:
    """Questions to the metadata of `lake`, which queries begin with: they wait for `may_go_on`."""

    def __init__(self, lake: Lake) -> None:
        self.asked: list[threading.Thread] = []
        self.may_go_on = threading.Event()
        self._tail = lake.metadata.tail

    def __call__(self, *arguments: Any, **named: Any) -> object:
        self.asked.append(threading.current_thread())
        self.may_go_on.wait()
        return self._tail(*arguments, **named)


@pytest.fixture
def held_tail(local_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldTail]:
    held = HeldTail(local_lake)
    monkeypatch.setattr(local_lake.metadata, "tail", held)
    yield held
    held.may_go_on.set()


def test_a_query_that_was_given_up_before_its_turn_is_never_planned(
    held_tail: HeldTail, local_engine: QueryEngine
) -> None:
    async def scenario() -> int:
        sql = "SELECT * FROM log_entries"
        first = [asyncio.create_task(answer(local_engine, sql)) for _ in range(64)]
        while not held_tail.asked:
            await asyncio.sleep(0.01)
        given_up = asyncio.create_task(answer(local_engine, sql))
        waiting = [*first, given_up]
        await asyncio.sleep(0)
        for task in waiting[32:]:
            task.cancel()
        await asyncio.wait(waiting[32:])
        held_tail.may_go_on.set()
        await asyncio.gather(*first[:32])
        return len((await answer(local_engine, sql)).to_batches())

    asyncio.run(scenario())
    assert len(held_tail.asked) == 33


def test_nothing_is_kept_of_queries_that_were_cut_off(
    held_tail: HeldTail, local_engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planned for nobody would go on, and hold its memory."""
    planned: list[weakref.ref[QueryStream]] = []

    class Watched(QueryStream):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            planned.append(weakref.ref(self))

    monkeypatch.setattr("micromegas.query.engine.QueryStream", Watched)

    async def scenario() -> None:
        given_up = asyncio.create_task(answer(local_engine, "SELECT * FROM log_entries"))
        while not held_tail.asked:
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
        # its traceback knows what was planned
        del given_up
        held_tail.may_go_on.set()
        while not planned or planned[0]() is not None:
            await asyncio.sleep(0.01)
            gc.collect()
        await answer(local_engine, "SELECT * FROM generate_series(1, 9)", limit=3)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert local_engine.work_in_hand.pieces_cut == []
    assert local_engine.work_in_hand.running == 0


def test_an_error_in_mid_stream_comes_after_the_rows(local_engine: QueryEngine) -> None:
    rows = []

    async def scenario() -> None:
        sql = "SELECT 1 / (500000 - value) FROM generate_series(1, 1000000)"
        async for batch in await local_engine.execute(QueryRequest(sql)):
            rows.append(batch.num_rows)

    with pytest.raises(QueryError, match=r"(?i)divide by zero") as failure:
        asyncio.run(scenario())
    assert failure.value.kind == "invalid"
    assert sum(rows) > 0
