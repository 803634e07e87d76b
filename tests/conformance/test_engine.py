"""Shapes 58 to 68 of lakehouse §9: ranges, limits, types, errors, the catalogue."""

from __future__ import annotations

import pyarrow as pa
import pytest
from conformance.conftest import Asked
from conformance.world import HOUR, MINUTE, START

from micromegas.client import QueryFailed

EMPTY = (START - 200_000 * HOUR, START - 199_999 * HOUR)
"""Before all recordings, too."""
DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())


def test_58_ranges_are_exact(asked: Asked) -> None:
    logs = sorted(each.time for each in asked.world.logs)
    first, last = logs[100], logs[200]
    sql = "SELECT COUNT(*) FROM log_entries"
    inside = sum(first <= time <= last for time in logs)
    assert asked.rows(sql, (first, last)) == [(inside,)]
    assert asked.rows(sql, (first + 1, last)) == [(inside - logs.count(first),)]
    assert asked.rows(sql, (first, last - 1)) == [(inside - logs.count(last),)]
    assert asked.rows(sql, (first, first)) == [(logs.count(first),)]


def test_59_without_a_range(asked: Asked) -> None:
    thread = next(stream for stream in asked.world.streams if stream.tag == "cpu")
    assert asked.rows("SELECT COUNT(*) FROM processes WHERE exe = 'GameEditor.exe'") == [(2,)]
    with pytest.raises(QueryFailed, match="thread_spans needs a time range"):
        asked.rows(f"SELECT * FROM view_instance('thread_spans', '{thread.stream_id}')")


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_60_the_limit_of_the_headers(asked: Asked, limit: int) -> None:
    for sql in (
        "SELECT msg FROM log_entries",
        "SELECT msg FROM log_entries LIMIT 100",
        "SELECT time, COUNT(*) FROM log_entries GROUP BY time ORDER BY 2 LIMIT 50",
        "SELECT * FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))",
    ):
        assert len(asked.rows(sql, limit=limit)) == limit


def test_60_a_smaller_limit_of_the_statement_counts(asked: Asked) -> None:
    assert len(asked.rows("SELECT msg FROM log_entries LIMIT 2", limit=7)) == 2


def test_61_empty_results_have_their_schema(asked: Asked) -> None:
    tables = [
        name for (name,) in asked.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    ]
    assert {"blocks", "log_entries", "measures", "processes", "streams"} <= set(tables)
    process = asked.world.processes[0]
    thread = next(stream for stream in process.streams if stream.tag == "cpu")
    for view_set, has_instances in asked.rows("SELECT view_set_name, has_view_maker FROM list_view_sets()"):
        if has_instances:
            instance = thread.stream_id if view_set == "thread_spans" else process.process_id
            tables.append(f"view_instance('{view_set}', '{instance}')")
    for table in tables:
        empty = asked.preserving.query(f"SELECT * FROM {table}", *EMPTY)
        known = asked.preserving.query(f"SELECT * FROM {table} LIMIT 1", START - 10**6 * HOUR, START + 10 * HOUR)
        assert empty.num_rows == 0, table
        assert empty.schema.equals(known.schema), table


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT colour FROM log_entries", "colour"),
        ("SELECT * FROM nothing_here", "nothing_here"),
        ("SELECT * FROM view_instance('nothing', '{process}')", "nothing"),
        ("SELECT * FROM view_instance('log_entries', 'no-id')", "no-id"),
        ("SELECT * FROM view_instance('log_entries', '00000000-0000-4000-8000-000000000000')", "unknown process"),
        ("SELECT * FROM view_instance('thread_spans', 'global')", "no global instance"),
        ("SELECT * FROM view_instance('processes', 'global')", "processes"),
        ("SELEC 1", "SELEC"),
    ],
)
def test_63_errors_name_what_is_wrong(asked: Asked, sql: str, named: str) -> None:
    with pytest.raises(QueryFailed, match=named) as failed:
        asked.rows(sql.format(process=asked.world.processes[0].process_id))
    for revealing in ("Traceback", ".py", "/tmp", "/home"):
        assert revealing not in str(failed.value)
    assert asked.rows("SELECT 1") == [(1,)]


def test_64_dictionaries_only_when_asked_for(asked: Asked) -> None:
    sql = "SELECT exe, target, properties, msg FROM log_entries LIMIT 5"
    plain, kept = asked.client.query(sql), asked.preserving.query(sql)
    assert plain.schema.types == [pa.utf8(), pa.utf8(), pa.binary(), pa.utf8()]
    assert kept.schema.types == [DICT_TEXT, DICT_TEXT, pa.dictionary(pa.int32(), pa.binary()), pa.utf8()]


def test_65_catalogue(asked: Asked) -> None:
    shown = asked.table("SHOW TABLES")["table_name"].to_pylist()
    assert {"blocks", "log_entries", "measures", "processes", "streams"} <= set(shown)
    sql = (
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'log_entries' ORDER BY ordinal_position"
    )
    columns = asked.rows(sql)
    assert [name for name, _, _ in columns] == [
        "process_id",
        "stream_id",
        "block_id",
        "insert_time",
        "exe",
        "username",
        "computer",
        "time",
        "target",
        "level",
        "msg",
        "properties",
        "process_properties",
    ]
    types = {name: data_type for name, data_type, _ in columns}
    assert types["level"] == "Int32"
    assert types["time"].startswith("Timestamp")
    assert {nullable for _, _, nullable in columns} == {"NO"}


def test_66_dashboard_of_three_branches(asked: Asked) -> None:
    within = (START, START + HOUR)
    sql = (
        "WITH l AS (SELECT 'logs' kind, COUNT(*) n FROM log_entries WHERE level <= 2), "
        "m AS (SELECT 'measures' kind, COUNT(*) n FROM measures WHERE name = 'x') "
        "SELECT * FROM l UNION ALL SELECT * FROM m "
        "UNION ALL SELECT 'processes', COUNT(*) FROM processes WHERE exe LIKE '%Editor%'"
    )
    found = dict(asked.rows(sql, within))
    assert found["logs"] == sum(each.level <= 2 and each.time <= within[1] for each in asked.world.logs)
    assert found["measures"] == sum(each.name == "x" and each.time <= within[1] for each in asked.world.measures)


def test_67_arithmetic_of_time(asked: Asked) -> None:
    begin = START + 17 * MINUTE
    sql = (
        "SELECT COUNT(*) FROM log_entries WHERE time >= TIMESTAMP '2026-05-28T20:32:00Z' - INTERVAL '15 minutes' "
        "AND time < TIMESTAMP '2026-05-28T20:32:00Z'"
    )
    assert asked.rows(sql) == [(sum(begin <= each.time < begin + 15 * MINUTE for each in asked.world.logs),)]
    assert asked.rows(
        "SELECT COUNT(*) FROM log_entries WHERE time BETWEEN NOW() - INTERVAL '15 minutes' AND NOW()"
    ) == [(0,)]
    thread = next(stream for stream in asked.world.streams if stream.tag == "cpu")
    sql = f"SELECT CAST(end - begin AS BIGINT) - duration FROM view_instance('thread_spans', '{thread.stream_id}')"
    assert set(asked.rows(sql, (START, START + 4 * HOUR))) == {(0,)}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO processes SELECT * FROM processes",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/written.csv'",
        "DROP TABLE log_entries",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1; SELECT 2",
    ],
)
def test_68_only_reads(asked: Asked, sql: str) -> None:
    with pytest.raises(QueryFailed):
        asked.rows(sql)
    assert asked.rows("SELECT COUNT(*) FROM information_schema.tables WHERE table_name IN ('t', 'v')") == [(0,)]
