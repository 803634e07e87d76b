"""What is written for PostgreSQL means the same to the lake: its values, and the names of its columns."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from postgres_gateway.beside import Both
from postgres_gateway.gateway import Asked

from micromegas.serve.postgres.patterns import interval_text, similar_pattern, time_pattern


@pytest.mark.parametrize(
    "question",
    [
        "count(*), count(*), max(level), 1, 1, 'x', NULL FROM log_entries",
        "msg, msg, level AS msg FROM log_entries ORDER BY 1, 3",
        "level AS a, msg AS a FROM log_entries ORDER BY 1, 2",
        "level, count(*) FROM log_entries GROUP BY 1 ORDER BY count DESC",
        "level, count(*) FROM log_entries GROUP BY level ORDER BY max(level), count",
        "date_trunc('day', time), count(*) FROM log_entries GROUP BY 1 ORDER BY date_trunc DESC",
        "count FROM (SELECT level, count(*) FROM log_entries GROUP BY 1) x ORDER BY 1",
        'x.max, "?column?" FROM (SELECT max(level), max(level) + 1 FROM log_entries) x',
        "* FROM (SELECT msg, count(*), max(level), max(level) FROM log_entries GROUP BY msg) q ORDER BY count, msg",
        "level lvl, count(*) n FROM log_entries GROUP BY level ORDER BY n",
        "DISTINCT ON (level) level, msg FROM log_entries ORDER BY level, msg",
        "level::text, (level)::bigint, cast(level AS text), cast(1 AS text), 1, '1'::int FROM log_entries ORDER BY 1",
        "level, level::int::int8, max(level)::text FROM log_entries GROUP BY 1, msg ORDER BY msg, 1",
        "(level), ((level + 1)), (max(level)) FROM log_entries GROUP BY level ORDER BY 1",
        "(SELECT max(level) FROM log_entries), (SELECT 1), (SELECT msg m FROM log_entries ORDER BY msg LIMIT 1)",
        "EXISTS (SELECT 1 FROM log_entries)",
        "NOT EXISTS (SELECT msg, time FROM log_entries WHERE level = 99), 1 FROM log_entries",
        "CASE WHEN level = 4 THEN msg END, CASE WHEN level = 4 THEN 1 ELSE level END FROM log_entries ORDER BY 1, 2",
        "coalesce(level, 1), trim(msg), trim(LEADING 'h' FROM msg), position('x' IN msg), level IS NULL, -level, "
        "time AT TIME ZONE 'UTC' IS NULL, interval '1 day', ARRAY[1, 2], current_date IS NULL FROM log_entries "
        "ORDER BY msg, level",
        'msg AS "Message", level AS Level, time "the time", msg m FROM log_entries ORDER BY msg, 3',
        "level IS DISTINCT FROM 3, level IS NOT DISTINCT FROM 3 FROM log_entries ORDER BY time, msg",
        "row_number() OVER (ORDER BY msg), rank() OVER w FROM log_entries WINDOW w AS (ORDER BY level) ORDER BY 1",
        "level FROM log_entries UNION ALL SELECT count(*) FROM log_entries ORDER BY level",
        "max(level) FROM log_entries UNION ALL SELECT count(*) FROM log_entries ORDER BY 1",
        "level AS msg, msg AS level FROM log_entries ORDER BY msg, level",
        "sum(level) AS sum, sum(level) FROM log_entries",
    ],
)
def test_columns_are_called_as_postgresql_calls_them(both: Both, question: str) -> None:
    told, rows = both.say(f"SELECT {question}")
    assert told.startswith("SELECT")
    assert rows


def test_named_with_and_explained(both: Both) -> None:
    both.say("WITH c AS (SELECT level, count(*) FROM log_entries GROUP BY 1) SELECT sum(count) FROM c")
    both.say(
        "WITH c(a, b) AS (SELECT level, count(*) FROM log_entries GROUP BY 1) "
        "SELECT a, sum(b) FROM c GROUP BY 1 ORDER BY 1"
    )
    both.say("DECLARE c CURSOR WITH HOLD FOR SELECT count(*), 1 FROM log_entries")
    both.say("FETCH c")


def test_a_column_beside_all_columns(connection: psycopg.Connection[Any]) -> None:
    (columns,) = (connection.execute("SELECT * FROM log_entries LIMIT 0").description or [],)
    names = [column.name for column in columns]
    for question, before, behind in (
        ("level, *", ["level"], []),
        ("*, count(*) OVER (), msg", [], ["count", "msg"]),
        ("1, l.*, l.time", ["?column?"], ["time"]),
    ):
        cursor = connection.execute(f"SELECT {question} FROM log_entries l ORDER BY time, level".encode())
        assert [column.name for column in cursor.description or []] == [*before, *names, *behind]
        assert len(cursor.fetchall()[0]) == len(before) + len(names) + len(behind)


@pytest.mark.parametrize(
    "condition",
    [
        r"msg = ANY (E'{hello,\"NULL\",\"tab\tnew\nline \\\\ back\"}'::text[])",
        "msg = ANY (CAST('{hello,NULL}' AS text[]))",
        "msg <> ALL ('{}'::text[]) AND level <> ALL ('{3,NULL}'::int[])",
        "level > ALL ('{1,2}'::int[]) AND level < ANY ('{4,9}'::bigint[])",
        "level = ANY ('{}'::int[])",
        "msg SIMILAR TO '(h|E)%' OR msg SIMILAR TO '_ULL' OR msg SIMILAR TO 'hell' OR msg NOT SIMILAR TO '%[a-z]%'",
        "msg SIMILAR TO '[[:alpha:]]+' OR msg SIMILAR TO '%[]&&[]%'",
        "msg NOT SIMILAR TO '[^]&&[:lower:]]%'",
        r"msg = ANY (E'{h\145llo,\xC3\xB6,\uD83D\uDE00}'::text[]) OR msg = E'\x4eU\u004cL'",
        "time > 'yesterday' AND time < 'infinity' AND time > '-infinity' AND time > 'epoch'",
        "time < 'infinity'::timestamptz AND msg <> 'now'",
        "EXISTS (SELECT 1 FROM log_entries r WHERE r.level < log_entries.level)",
    ],
)
def test_conditions_mean_the_same(both: Both, condition: str) -> None:
    both.say(f"SELECT count(*) FROM log_entries WHERE {condition}")
    both.say(f"SELECT msg FROM log_entries WHERE {condition} ORDER BY msg, level")


@pytest.mark.parametrize(
    "expression",
    [
        """to_char(time, 'YYYY-MM-DD"T"HH24:MI:SS.MS'), to_char(time, 'Dy, DD Mon YYYY HH12:MI AM')""",
        "to_char(time, 'FMMonth IYYY-IW ID DDD'), to_char(time, 'US yy yyyy-mm-dd hh24')",
        "to_date('2020-01-02', 'YYYY-MM-DD')",
        "(extract(second FROM time) * 1000000)::int, (date_part('milliseconds', time) * 1000)::int",
        "mod(level, 3), mod(level + 1, mod(7, 4)), every(level > 1) OVER (), sign(-2), ceiling(1.2)",
        "interval '1 day 02:03:04', '01:00:00'::interval, interval '-01:30:00', '2 days -00:00:01.5'::interval",
        "time::date + interval '1 hour', time::date - '90 minutes'::interval",
        "current_date - interval '1 hour' = current_date::timestamp - interval '1 hour'",
        "'{1,2,NULL}'::int[], '{a,\"b c\",NULL,\"\"}'::text[], CAST('{1,2}' AS bigint[]), '{}'::int[]",
        r"'\x6162'::bytea, '\x'::bytea",
        r"E'\xC3\xb6\303\266', E'\uD83D\uDE00\U0001F600''', E'{\xC3\xB6,\\\\}'::text[], E'\\x\q\t'",
        "localtimestamp IS NULL, clock_timestamp() > now() - interval '1 minute'",
    ],
)
def test_values_are_the_same(both: Both, expression: str) -> None:
    told, _ = both.say(f"SELECT {expression} FROM log_entries ORDER BY time, msg")
    assert told.startswith("SELECT")


@pytest.mark.parametrize(
    ("question", "state"),
    [
        ("SELECT msg FROM log_entries TABLESAMPLE bernoulli (10)", "0A000"),
        ("SELECT to_char(time, 'YYYY Q') FROM log_entries", "0A000"),
        ("SELECT to_char(time, 'SSSS') FROM log_entries", "0A000"),
        ("SELECT to_char(time, 'IDDD') FROM log_entries", "0A000"),
        ("SELECT msg FROM log_entries WHERE msg SIMILAR TO exe", "0A000"),
        ("SELECT msg FROM log_entries WHERE msg SIMILAR TO '[a'", "2201B"),
        (r"SELECT E'\xff' FROM log_entries", "22021"),
        (r"SELECT msg FROM log_entries WHERE msg = ANY (E'{\uD83D}'::text[])", "22021"),
        (r"SELECT E'a\0' FROM log_entries", "22021"),
        (r"SELECT E'\U00110000' FROM log_entries", "42601"),
        ("SELECT msg FROM log_entries WHERE msg = ANY ('{a')", "22P02"),
        ("SELECT process_properties -> 'a' ->> 0 FROM log_entries", "0A000"),
        (r"SELECT '\xg1'::bytea FROM log_entries", "22P02"),
        ("SELECT 40000::smallint FROM log_entries", "22003"),
        ("SELECT count(*) FROM log_entries ORDER BY msg", "42803"),
    ],
)
def test_what_would_mean_something_else_is_refused(
    connection: psycopg.Connection[Any], question: str, state: str
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(question.encode())
    assert refused.value.sqlstate == state


def test_json(connection: psycopg.Connection[Any]) -> None:
    run = connection.execute
    (everything,) = run("SELECT count(*) FROM log_entries").fetchone() or (0,)
    for equal, unequal in (("= '{}'", "<> '{ }'::jsonb"), ("= '{ }'::json", "!= '{}'")):
        same = run(f"SELECT count(*) FROM log_entries WHERE properties {equal}".encode()).fetchone() or (0,)
        other = run(f"SELECT count(*) FROM log_entries l WHERE l.properties {unequal}".encode()).fetchone() or (0,)
        assert same[0] > 0
        assert other[0] > 0
        assert same[0] + other[0] == everything
    bound = run("SELECT msg FROM log_entries WHERE properties = %s", ['{"user": "alice", "empty": ""}']).fetchall()
    assert bound == [("tagged",)]
    told = run(
        """SELECT properties ->> 'user', (l.properties) ->> 'user', properties #>> '{user}',
        properties -> 'user' = '"alice"', properties['user'] = '"bob"', properties ? 'user', properties ? 'nosuch',
        properties::text, CAST(l.properties AS text), "properties"::varchar
        FROM log_entries l WHERE properties ->> 'user' = 'alice'"""
    ).fetchall()
    written = '{"empty":"","user":"alice"}'
    assert told == [("alice",) * 3 + (True, False, True, False) + (written,) * 3]
    nested = """'{"a":{"b":[1,{"c":"x"}]}}'::jsonb"""
    taken = f"{nested} -> 'a' -> 'b' -> 1 ->> 'c', {nested} #>> ARRAY['a','b']"
    assert run(f"SELECT {taken} FROM log_entries LIMIT 1".encode()).fetchone() == ("x", '[1,{"c":"x"}]')


def test_of_what_is_no_column_of_the_lake_nothing_is_made(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    question = """SELECT 'properties = ''{}''', "now", '->' FROM (SELECT msg AS "now", level FROM log_entries) x
    WHERE "now" <> 'now' -- properties ? 'x'
    AND '{1,2}' <> "now" ORDER BY level LIMIT 1"""
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    assert (row[0], row[2]) == ("properties = '{}'", "->")


@pytest.mark.parametrize(
    ("pattern", "read"),
    [("HH24:MI:SS.US", "%H:%M:%S.%6f"), ('YYYY"YYYY"', "%YYYYY"), ("%Y-%m", "%Y-%m"), ("FMDay", "%A"), ("", "")],
)
def test_patterns_of_times(pattern: str, read: str) -> None:
    assert time_pattern(pattern) == read


def test_other_patterns() -> None:
    assert similar_pattern("a.b\\%[%_]") == "^(?:a\\.b%[%_])$"
    assert interval_text("1 day -01:02") == "1 day -1 hours -2 minutes".replace("-1 ", "-01 ").replace("-2 ", "-02 ")
