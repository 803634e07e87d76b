"""Views that a site defines in SQL: right ones are tables like any other, wrong ones are told of and hurt nobody."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from daemon.log_minutes import LogMinutes, asked, counted, keep_logs, keep_stats, kept, random_events, reduced_view_set
from daemon.telemetry import MIDNIGHT, HandClock, always
from e2e.made_traffic import START_TIME
from query.asking import ask, column, one
from query.conftest import SETTINGS

from micromegas.config import LakeSettings, QuerySettings, RetentionPolicies
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE
from micromegas.daemon.selection import PolicyError, Selection
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError, QueryRequest
from micromegas.views.sql_definition import read_definitions
from micromegas.views.view_set import GLOBAL_INSTANCE

PER_TARGET = """
-- @view errors_per_target
-- @row a target in an hour of errors
-- @time hour
-- @largest hour
-- @transform
SELECT date_trunc('hour', time) AS hour, target, count(*) AS errors, max(level) AS worst
FROM log_entries WHERE level <= 3 GROUP BY 1, 2
-- @merge
SELECT hour, target, sum(errors) AS errors, max(worst) AS worst FROM parts GROUP BY 1, 2
"""
SPANS_OF_TIME = """
-- @view lifetimes
-- @time first_time, last_time
-- @transform
SELECT process_id, min(begin_time) AS first_time, max(end_time) AS last_time, sum(nb_objects) AS events
FROM blocks GROUP BY process_id
-- @merge
SELECT process_id, min(first_time) AS first_time, max(last_time) AS last_time, sum(events) AS events
FROM parts GROUP BY process_id
"""
CHAINED = """
-- @view per_hour
-- @time hour
-- @transform
SELECT date_trunc('hour', time_bin) AS hour, sum(count) AS lines FROM log_stats GROUP BY 1
-- @merge
SELECT hour, sum(lines) AS lines FROM parts GROUP BY hour

-- @view per_day
-- @time day
-- @transform
SELECT date_trunc('day', hour) AS day, sum(lines) AS lines FROM per_hour GROUP BY 1
-- @merge
SELECT day, sum(lines) AS lines FROM parts GROUP BY day
"""


def simple(name: str, transform: str, merge: str = "SELECT * FROM parts", time: str = "time") -> str:
    return f"-- @view {name}\n-- @time {time}\n-- @transform\n{transform}\n-- @merge\n{merge}\n"


@contextmanager
def engine_with(lake: Lake, folder: Path, text: str, settings: QuerySettings = SETTINGS) -> Iterator[QueryEngine]:
    file = folder / "views.sql"
    file.write_text(text, encoding="utf-8")
    opened = QueryEngine(
        lake,
        QuerySettings(
            memory_bytes=settings.memory_bytes, statement_timeout_s=settings.statement_timeout_s, views_file=file
        ),
    )
    try:
        yield opened
    finally:
        opened.close()


def problems_of(lake: Lake, folder: Path, text: str) -> list[str]:
    with engine_with(lake, folder, text) as engine:
        return [str(problem) for problem in engine.view_problems]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def small_lake(tmp_path: Path, clock: HandClock) -> Iterator[Lake]:
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake"), clock) as opened:
        yield opened


def test_a_site_s_view_is_a_table_like_any_other(lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    process = LogMinutes(lake)
    process.send([(0, 2, "shop::orders"), (1, 4, "shop::orders"), (70, 2, "shop::orders"), (70, 2, "shop::cache")])
    expected = [
        (START_TIME // HOUR * HOUR, "shop::orders", 1, 2),
        (START_TIME // HOUR * HOUR + HOUR, "shop::cache", 1, 2),
    ]
    expected.append((START_TIME // HOUR * HOUR + HOUR, "shop::orders", 1, 2))
    statement = "SELECT hour, target, errors, worst FROM errors_per_target ORDER BY hour, target"
    with engine_with(lake, tmp_path, PER_TARGET) as engine:
        assert engine.view_problems == []

        def rows() -> list[tuple[object, ...]]:
            table = ask(engine, statement)
            return list(zip(*(column(table, name) for name in table.schema.names), strict=True))

        assert rows() == expected
        clock.now += 2 * MINUTE
        keep_logs(lake, clock)
        keep_stats(lake, engine, clock, "errors_per_target")
        (partition,) = lake.metadata.partitions("errors_per_target", GLOBAL_INSTANCE)
        assert partition.num_rows == 3
        assert rows() == expected
        process.send([(0, 2, "shop::orders")])
        assert rows()[0][2] == 2
        assert "errors_per_target" in [table.name for table in engine.tables()]
        assert "errors_per_target" in column(ask(engine, "SHOW TABLES"), "table_name")
        listed = ask(engine, "SELECT * FROM list_view_sets() WHERE view_set_name = 'errors_per_target'").to_pylist()
        assert listed[0]["current_schema_hash"] == partition.schema_hash
        assert listed[0]["schema"].splitlines()[0] == "hour:timestamp(ns,+00:00)?"
        assert (listed[0]["has_view_maker"], listed[0]["global_instance_available"]) == (False, True)
        joined = "SELECT count(*) FROM errors_per_target e JOIN log_stats s ON e.target = s.target AND s.level = 2"
        assert one(ask(engine, joined)) == 5
        with pytest.raises(QueryError, match="has no instances: name it in FROM"):
            ask(engine, f"SELECT * FROM view_instance('errors_per_target', '{process.process_id}')")
        # The view keeps hours at most.
        clock.now += 2 * DAY
        process.send([(0, 4, "shop::orders")])
        clock.now += HOUR
        keep_logs(lake, clock)
        keep_stats(lake, engine, clock, "errors_per_target")
        lengths = [
            each.end_insert_time - each.begin_insert_time
            for each in lake.metadata.partitions("errors_per_target", GLOBAL_INSTANCE)
            if each.num_rows
        ]
        assert lengths
        assert max(lengths) <= HOUR


def test_rows_that_last_are_found_by_both_their_times_and_whole(lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    process = LogMinutes(lake)
    with engine_with(lake, tmp_path, SPANS_OF_TIME) as engine:
        assert engine.view_problems == []
        for minute in (0, 10, 20):
            process.send([(minute, 4, "shop::orders")])
            clock.now += 2 * MINUTE
            if minute < 20:
                keep_stats(lake, engine, clock, "lifetimes")
        assert len(lake.metadata.partitions("lifetimes", GLOBAL_INSTANCE)) == 2
        # In the middle nothing was logged, but the process lived; its last time is known whatever the range.
        begin, end = START_TIME + 12 * MINUTE, START_TIME + 13 * MINUTE
        for request in ({"begin": begin, "end": end}, {}):
            (row,) = ask(engine, "SELECT CAST(last_time AS BIGINT) l, events FROM lifetimes", **request).to_pylist()
            assert row == {"l": START_TIME + 21 * MINUTE, "events": 3}
        late = START_TIME + 22 * MINUTE
        assert ask(engine, "SELECT * FROM lifetimes", begin=late).num_rows == 0


def test_views_over_views_in_whatever_order_they_stand(lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    first, second = CHAINED.split("\n\n")
    process = LogMinutes(lake)
    random = Random(3)
    with engine_with(lake, tmp_path, second + "\n" + first) as engine:
        assert engine.view_problems == []
        assert [each.name for each in engine.reductions.view_sets] == ["log_stats", "per_hour", "per_day"]
        for number in range(4):
            process.send(random_events(random, 20))
            clock.now += random.choice([MINUTE, HOUR, DAY])
            keep_logs(lake, clock)
            # Not all of them are kept as well as the others.
            for name in random.sample(["log_stats", "per_hour", "per_day"], 2):
                keep_stats(lake, engine, clock, name)
            for view in ("per_hour", "per_day"):
                assert one(ask(engine, f"SELECT sum(lines) FROM {view}")) == 20 * (number + 1)
            assert asked(engine) == counted([process])
        assert lake.metadata.partitions("per_day", GLOBAL_INSTANCE)


def test_a_changed_definition_is_made_anew(lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    process = LogMinutes(lake)
    process.send([(0, 2, "shop::orders"), (0, 4, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    with engine_with(lake, tmp_path, PER_TARGET) as engine:
        keep_stats(lake, engine, clock, "errors_per_target")
        before = reduced_view_set(engine, "errors_per_target").schema_hash
    reformatted = PER_TARGET.replace("FROM log_entries WHERE", "-- only the bad\n  FROM   log_entries\nWHERE")
    with engine_with(lake, tmp_path, reformatted) as engine:
        assert reduced_view_set(engine, "errors_per_target").schema_hash == before
    with engine_with(lake, tmp_path, PER_TARGET.replace("level <= 3", "level <= 4")) as engine:
        assert reduced_view_set(engine, "errors_per_target").schema_hash != before
        assert one(ask(engine, "SELECT errors FROM errors_per_target")) == 2
        keep_stats(lake, engine, clock, "errors_per_target")
        (partition,) = lake.metadata.partitions("errors_per_target", GLOBAL_INSTANCE)
        assert partition.schema_hash == reduced_view_set(engine, "errors_per_target").schema_hash
        assert one(ask(engine, "SELECT errors FROM errors_per_target")) == 2
    # A view over a changed one is changed, too.
    with engine_with(lake, tmp_path, CHAINED) as engine:
        above = reduced_view_set(engine, "per_day").schema_hash
    with engine_with(lake, tmp_path, CHAINED.replace("sum(count) AS lines", "sum(2 * count) AS lines")) as engine:
        assert reduced_view_set(engine, "per_day").schema_hash != above


def test_hashes_stay_the_same_from_release_to_release(small_lake: Lake, tmp_path: Path) -> None:
    with engine_with(small_lake, tmp_path, PER_TARGET) as engine:
        hashes = {each.name: each.schema_hash.hex()[:16] for each in engine.reductions.view_sets}
    assert hashes == {"log_stats": "36d03ec5f1530de0", "errors_per_target": "85e347abe57df73e"}


WRONG = {
    "writes": (simple("v", "INSERT INTO log_entries SELECT * FROM log_entries"), "line 4: view v: transform: "),
    "writes a file": (simple("v", "COPY log_entries TO '/tmp/stolen.parquet'"), "line 4: view v: transform: "),
    "makes a table": (simple("v", "CREATE TABLE t AS SELECT * FROM log_entries"), "line 4: view v: transform: "),
    "two statements": (simple("v", "SELECT time FROM log_entries; DROP TABLE x"), "line 4: view v: transform: "),
    "unknown column": (simple("v", "SELECT time, colour FROM log_entries"), "line 4: view v: transform: .*colour"),
    "parse error": (simple("v", "SELECT time,\n  FROM FROM log_entries"), "line 4: view v: transform: .*Line: 5"),
    "unknown table": (simple("v", "SELECT time FROM logs"), "view v: it reads logs, which is no view"),
    "a file": (simple("v", "SELECT time FROM '/etc/passwd'"), "which is no view"),
    "no insert time": (simple("v", "SELECT start_time AS time FROM processes"), "processes can't be reduced"),
    "an instance": (simple("v", "SELECT time FROM view_instance('log_entries', 'x')"), "view_instance.*not found"),
    "the moment": (simple("v", "SELECT now() AS time FROM log_entries"), "now: what it gives changes"),
    "random": (simple("v", "SELECT time, random() r FROM log_entries"), "random: what it gives changes"),
    "limit": (simple("v", "SELECT time FROM log_entries ORDER BY time LIMIT 5"), "LIMIT: which rows"),
    "constant": (simple("v", "SELECT TIMESTAMP '2026-01-01T00:00:00Z' AS time"), "transform: it reads no view"),
    "no time": (simple("v", "SELECT msg FROM log_entries"), "gives no column time"),
    "time of another type": (simple("v", "SELECT CAST(time AS DATE) AS time FROM log_entries"), "cast it to TIMESTAMP"),
    "merge without parts": (
        simple("v", "SELECT time FROM log_entries", "SELECT time FROM log_entries"),
        "line 6: view v: .*log_entries",
    ),
    "merge of other columns": (
        simple("v", "SELECT time, msg FROM log_entries", "SELECT msg, time FROM parts"),
        "line 6: view v: merge: its columns are msg, time, those of the transform time, msg",
    ),
    "merge of other types": (
        simple("v", "SELECT time, level FROM log_entries", "SELECT time, avg(level) AS level FROM parts GROUP BY time"),
        "line 6: view v: merge: column level has the type double, in the transform int32",
    ),
    "built-in": (simple("log_entries", "SELECT time FROM measures"), "view log_entries: the name belongs"),
    "built-in by SQL": (simple("log_stats", "SELECT time FROM measures"), "view log_stats: the name belongs"),
    "reserved": (simple("parts", "SELECT time FROM measures"), "view parts: the name belongs"),
    "itself": (simple("v", "SELECT time FROM v"), "in a circle: v -> v"),
    "huge": (simple("v", "SELECT time FROM log_entries WHERE " + "level = 1 OR " * 3000 + "level = 2"), "more than"),
    "deep": (simple("v", "SELECT time, " + "(" * 500 + "1" + ")" * 500 + " FROM log_entries"), "nested parentheses"),
    "type that can't be kept": (
        simple("v", "SELECT time, INTERVAL '1 day' AS length FROM log_entries"),
        "column length: a view can't keep",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_definition_is_named_and_hurts_no_other(small_lake: Lake, tmp_path: Path, case: str) -> None:
    text, expected = WRONG[case]
    problems = []
    with engine_with(small_lake, tmp_path, text + PER_TARGET) as engine:
        problems = [str(problem) for problem in engine.view_problems]
        assert ask(engine, "SELECT * FROM errors_per_target").num_rows == 0
        assert ask(engine, "SELECT * FROM log_stats").num_rows == 0
    assert len(problems) == 1
    assert problems[0].startswith("views.sql line ")
    assert re.search(expected, problems[0]), problems[0]


def test_circles_name_their_views(small_lake: Lake, tmp_path: Path) -> None:
    text = simple("a", "SELECT time FROM b") + simple("b", "SELECT time FROM c") + simple("c", "SELECT time FROM a")
    text += simple("d", "SELECT time FROM a")
    told = problems_of(small_lake, tmp_path, text + PER_TARGET)
    assert len(told) == 4
    assert "view a: views read each other in a circle: a -> b -> c -> a" in told[0]
    assert "view d: views read each other in a circle: a -> b -> c -> a" in told[3]


def test_what_reads_a_wrong_view_says_so(small_lake: Lake, tmp_path: Path) -> None:
    text = simple("below", "SELECT nothing FROM log_entries") + simple("above", "SELECT time FROM below")
    with engine_with(small_lake, tmp_path, text) as engine:
        told = [str(problem) for problem in engine.view_problems]
        assert "view above: it reads below, which can't be used either" in told[1]
        # A policy for its rows is no mistake on that account.
        Selection(engine, RetentionPolicies(derived={"below": 3}))
        with pytest.raises(PolicyError):
            Selection(engine, RetentionPolicies(derived={"elsewhere": 3}))
        # Who asks for it learns the reason.
        with pytest.raises(QueryError, match=r"views\.sql line 4: view below: transform: .*nothing"):
            ask(engine, "SELECT * FROM below")


def test_files_that_are_no_files_of_views() -> None:
    def told(text: str) -> list[str]:
        return [str(problem) for problem in read_definitions(text, "f")[1]]

    assert told("") == []
    assert told("SELECT 1\n") == ["f line 1: SQL outside of -- @transform and -- @merge"]
    assert told("-- @time x\n") == ["f line 1: -- @time before the first -- @view"]
    assert told("-- @view V\n-- @time t\n-- @transform\nS\n-- @merge\nS") == [
        "f line 1: view V: the name must be of lower-case letters, digits and _, at most 63, a letter first"
    ]
    good = simple("a", "SELECT 1")
    assert told(good + good) == ["f line 7: view a: defined twice"]
    assert told(good.replace("-- @time time", "-- @colour red\n-- @time time")) == [
        "f line 2: view a: unknown setting -- @colour; there are row, time, largest, transform, merge"
    ]
    assert told(good.replace("-- @time time", "-- @largest year\n-- @time time")) == [
        "f line 2: view a: -- @largest must be one of minute, hour, day"
    ]
    assert told(good.replace("-- @time time\n", "")) == [
        "f line 1: view a: -- @time must name one column, or two with a comma"
    ]
    assert told(good.replace("-- @merge\nSELECT * FROM parts\n", "")) == [
        "f line 1: view a: -- @merge with a SELECT below it is missing"
    ]
    # What is wrong with one is no reason to lose another.
    assert [each.name for each in read_definitions("-- @view B\n" + good, "f")[0]] == ["a"]


def test_canonical_texts_keep_what_means_something() -> None:
    def canonical(sql: str) -> str:
        return read_definitions(simple("a", sql), "f")[0][0].transform.canonical

    assert canonical("SELECT  a, -- why\n b /* c */ FROM t ;\n") == "SELECT a, b FROM t"
    for one_text, other in [("'a  b'", "'a b'"), ('"a  b"', '"a b"'), ("'--  x'", "'-- x'"), ("$$a  b$$", "$$a b$$")]:
        assert canonical(f"SELECT {one_text}") != canonical(f"SELECT {other}")


SLOW = simple("slow", "SELECT time, sum(n) AS x FROM log_entries, generate_series(1, 1000000000000) AS s(n) GROUP BY 1")


def test_what_takes_too_long_or_too_much_stays_uncovered_and_holds_up_no_other(
    small_lake: Lake, clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    joins = " ".join(f"CROSS JOIN log_entries l{number}" for number in range(4))
    large = simple("large", f"SELECT l0.time, count(*) AS n FROM log_entries {joins} GROUP BY 1")
    process = LogMinutes(small_lake)
    process.send(random_events(Random(1), 90))
    clock.now += 2 * MINUTE
    keep_logs(small_lake, clock)
    with caplog.at_level(logging.ERROR):
        hasty = QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=0.5)
        with engine_with(small_lake, tmp_path, SLOW, hasty) as engine:
            assert kept(small_lake, engine, clock, "slow").cover(MIDNIGHT, always) == 1
        assert "took longer than 0.5 s" in caplog.text
        narrow = QuerySettings(memory_bytes=96 * 1024 * 1024, statement_timeout_s=60.0)
        with engine_with(small_lake, tmp_path, large + PER_TARGET, narrow) as engine:
            assert kept(small_lake, engine, clock, "large").cover(MIDNIGHT, always) == 1
            assert "Resources exhausted" in caplog.text
            keep_stats(small_lake, engine, clock, "errors_per_target")
            keep_stats(small_lake, engine, clock)
            assert asked(engine) == counted([process])
    assert {each.view_set for each in small_lake.metadata.all_partitions()} == {
        "log_entries",
        "log_stats",
        "errors_per_target",
    }


def test_a_reduction_takes_a_share_of_the_memory_that_no_query_has(
    small_lake: Lake, clock: HandClock, tmp_path: Path
) -> None:
    LogMinutes(small_lake).send(random_events(Random(1), 90))
    clock.now += 2 * MINUTE
    keep_logs(small_lake, clock)
    file = tmp_path / "views.sql"
    file.write_text(SLOW, encoding="utf-8")
    settings = QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0, views_file=file)
    engine = QueryEngine(small_lake, settings)
    taken: list[list[int]] = []

    def go_on() -> bool:
        taken.append([share.queries for share in engine._sessions._shares])
        return len(taken) < 4

    async def query_while_it_reduces() -> None:
        stream = await engine.execute(QueryRequest("SELECT * FROM log_entries"))
        try:
            await asyncio.to_thread(kept(small_lake, engine, clock, "slow").cover, MIDNIGHT, go_on)
        finally:
            await stream.aclose()

    try:
        asyncio.run(query_while_it_reduces())
        assert max(taken) == [1, 1]
        assert [share.queries for share in engine._sessions._shares] == [0, 0]
    finally:
        engine.close()


def test_a_narrow_range_decodes_what_is_in_it_only(small_lake: Lake, tmp_path: Path) -> None:
    process = LogMinutes(small_lake)
    # Half an hour apart, as event times of blocks are known with a margin.
    for minute in range(0, 1440, 30):
        process.send([(minute, 2, "shop::orders")] * 50)
    payloads = sum(block.payload_size for block in small_lake.metadata.blocks())
    engine = QueryEngine(small_lake, QuerySettings(memory_bytes=256 * 1024 * 1024, tail_bytes=payloads - 1))
    try:
        with pytest.raises(QueryError, match="not in partitions yet"):
            ask(engine, "SELECT * FROM log_stats")
        at = [f"arrow_cast({START_TIME + minute * MINUTE}, 'Timestamp(ns)')" for minute in (60, 61)]
        for condition in (f"time_bin = {at[0]}", f"time_bin >= {at[0]} AND time_bin < {at[1]}"):
            assert one(ask(engine, f"SELECT sum(count) FROM log_stats WHERE {condition}")) == 50
        of_request = {"begin": START_TIME + 60 * MINUTE, "end": START_TIME + 61 * MINUTE}
        assert one(ask(engine, "SELECT sum(count) FROM log_stats", **of_request)) == 50
    finally:
        engine.close()


def test_rows_without_their_time_are_refused_and_stay_visible(
    small_lake: Lake, clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = simple("sometimes", "SELECT nullif(time, time) AS time, msg FROM log_entries")
    LogMinutes(small_lake).send([(0, 2, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_logs(small_lake, clock)
    with engine_with(small_lake, tmp_path, bad) as engine, caplog.at_level(logging.ERROR):
        assert engine.view_problems == []
        assert kept(small_lake, engine, clock, "sometimes").cover(MIDNIGHT, always) == 1
        assert "a row without time can't be found by time" in caplog.text
        assert ask(engine, "SELECT * FROM sometimes").num_rows == 1


def test_stopping_ends_a_reduction_at_once(small_lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    LogMinutes(small_lake).send(random_events(Random(1), 90))
    clock.now += 2 * MINUTE
    keep_logs(small_lake, clock)
    with engine_with(small_lake, tmp_path, SLOW) as engine:
        asked_to_go_on = iter([True, True, False])
        assert kept(small_lake, engine, clock, "slow").cover(MIDNIGHT, lambda: next(asked_to_go_on, False)) == 0
    assert small_lake.metadata.partitions("slow", GLOBAL_INSTANCE) == []


def test_aggregates_of_ours_may_be_used(small_lake: Lake, clock: HandClock, tmp_path: Path) -> None:
    text = simple(
        "durations",
        "SELECT date_trunc('hour', time) AS time, make_histogram(0.0, 10.0, 10, level) AS levels "
        "FROM log_entries GROUP BY 1",
        "SELECT time, sum_histograms(levels) AS levels FROM parts GROUP BY 1",
    )
    process = LogMinutes(small_lake)
    with engine_with(small_lake, tmp_path, text) as engine:
        assert [str(each) for each in engine.view_problems] == []
        for _ in range(2):
            process.send([(0, 2, "shop::orders"), (0, 4, "shop::orders")])
            clock.now += 2 * MINUTE
            keep_logs(small_lake, clock)
            keep_stats(small_lake, engine, clock, "durations")
        process.send([(0, 4, "shop::orders")])
        answer = ask(engine, "SELECT count_from_histogram(levels) n, sum_from_histogram(levels) s FROM durations")
        assert answer.to_pylist() == [{"n": 5, "s": 16.0}]


def test_a_row_of_nothing_is_a_row(lake: Lake, tmp_path: Path) -> None:
    """What is transformed of no rows at all is left out only where nothing comes of it."""
    counted = simple(
        "counted",
        "SELECT max(time) AS time, count(*) AS lines FROM log_entries",
        "SELECT max(time) AS time, CAST(sum(lines) AS BIGINT) AS lines FROM parts",
    )
    with engine_with(lake, tmp_path, counted) as engine:
        assert engine.view_problems == []
        for _ in range(2):
            assert column(ask(engine, "SELECT lines FROM counted")) == [0]
            assert ask(engine, "SELECT * FROM log_stats").num_rows == 0
        LogMinutes(lake).send([(0, 2, "shop::orders"), (1, 4, "shop::orders")])
        assert column(ask(engine, "SELECT lines FROM counted")) == [2]
        assert one(ask(engine, "SELECT sum(count) FROM log_stats")) == 2
