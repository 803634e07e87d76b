"""psycopg 3: values and their types in both forms, parameters, cursors, COPY, transactions, errors, cancelling."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked
from psycopg import errors

OWN = "SELECT msg FROM log_entries WHERE process_id = %s ORDER BY time"


def test_values_arrive_as_they_are_in_text_and_binary_form(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        rows = cursor.execute(
            "SELECT time, msg, level, process_id FROM log_entries WHERE process_id = %s ORDER BY time",
            [asked.process_id],
        ).fetchall()
        assert [row[1] for row in rows] == asked.messages
        assert {row[3] for row in rows} == {asked.process_id}
        assert all(isinstance(row[2], int) for row in rows)
        # nanoseconds are cut to the microseconds that PostgreSQL has
        first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asked.first_time // 1000)
        assert rows[0][0] == first
        values = cursor.execute(
            "SELECT value FROM measures WHERE process_id = %s ORDER BY time", [asked.process_id]
        ).fetchall()
        assert [value for (value,) in values] == asked.values
        assert str(values[2][0]) == "-0.0"


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("true", True),
        ("arrow_cast(-7, 'Int8')", -7),
        ("arrow_cast(255, 'UInt8')", 255),
        ("arrow_cast(65535, 'UInt16')", 65535),
        ("arrow_cast(4294967295, 'UInt32')", 4294967295),
        ("arrow_cast(18446744073709551615, 'UInt64')", Decimal(18446744073709551615)),
        ("arrow_cast(0.25, 'Float32')", 0.25),
        ("arrow_cast(12.345, 'Decimal128(10, 3)')", Decimal("12.345")),
        ("arrow_cast(-0.0001, 'Decimal128(10, 4)')", Decimal("-0.0001")),
        ("arrow_cast(100000000, 'Decimal128(20, 0)')", Decimal(100000000)),
        ("arrow_cast('2020-02-29', 'Date32')", datetime(2020, 2, 29).date()),
        ("arrow_cast('0001-01-01', 'Date32')", datetime(1, 1, 1).date()),
        (
            "arrow_cast('1969-12-31T23:59:59.5', 'Timestamp(Nanosecond, None)')",
            datetime(1969, 12, 31, 23, 59, 59, 500_000),
        ),
        ("arrow_cast('2262-01-01T00:00:00Z', 'Timestamp(Second, Some(\"UTC\"))')", datetime(2262, 1, 1, tzinfo=UTC)),
        ("arrow_cast('23:59:59.000001', 'Time64(Microsecond)')", datetime(1, 1, 1, 23, 59, 59, 1).time()),
        (
            "arrow_cast(90061000001, 'Duration(Microsecond)')",
            timedelta(days=1, hours=1, minutes=1, seconds=1, microseconds=1),
        ),
        ("arrow_cast('1 day -2 hours', 'Interval(MonthDayNano)')", timedelta(days=1, hours=-2)),
        ("arrow_cast('abc', 'Utf8View')", "abc"),
        ("arrow_cast('abc', 'LargeUtf8')", "abc"),
        ("arrow_cast('abc', 'Dictionary(Int8, Utf8)')", "abc"),
        ("arrow_cast('abc', 'Binary')", b"abc"),
        ("make_array(arrow_cast(1, 'Int64'), NULL, arrow_cast(3, 'Int64'))", [1, None, 3]),
        (
            "make_array('a', 'b c', '', 'NULL', '\"', '\\', '{,}', NULL)",
            ["a", "b c", "", "NULL", '"', "\\", "{,}", None],
        ),
        ("arrow_cast(make_array(), 'List(Int64)')", []),
        ('jsonb_parse(\'{"b": [1, null], "a": "x"}\')', {"a": "x", "b": [1, None]}),
        ("named_struct('a', 1, 'b', 'x')", {"a": 1, "b": "x"}),
        ("arrow_cast(NULL, 'Int64')", None),
    ],
)
def test_every_type(connection: psycopg.Connection[Any], sql: str, expected: Any, binary: bool) -> None:
    # a function that only the lake has makes it a question for the lake
    cursor = connection.cursor(binary=binary)
    row = cursor.execute(f"SELECT {sql} AS value, arrow_typeof(1) AS kind".replace("%", "%%")).fetchone()
    assert row == (expected, "Int64")


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("msg = %s", "öne ☃"),
        ("level >= %s", 0),
        ("level >= %s", 2**40 * -1),
        ("time > %s", datetime(2000, 1, 1, tzinfo=UTC)),
        ("time < %s", datetime(2200, 1, 1)),
        ("now() - %s < now()", timedelta(days=2, seconds=1.5)),
        ("%s", True),
        ("1.5::double precision = %s", 1.5),
        ("arrow_cast(1.5, 'Decimal128(38, 10)') = %s", Decimal("1.5")),
        ("%s = 'x'::bytea OR true", b"x"),
        ("level = any(%s)", [0, 1, 2, 3, 4, 5]),
        ("msg = any(%s)", ["öne ☃", "it's 'quoted'", "{,}"]),
        ("level <> %b", 77),
        ("time > %b", datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_parameters_of_every_kind(
    asked: Asked, connection: psycopg.Connection[Any], condition: str, value: Any
) -> None:
    sql = f"SELECT count(*) FROM log_entries WHERE process_id = %s AND ({condition})"
    row = connection.execute(sql, [asked.process_id, value]).fetchone()
    assert row is not None
    assert row[0] > 0


def test_large_values_are_taken_one_after_the_other(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    large = "x" * 5_000_000
    own = "SELECT count(*) FROM log_entries WHERE process_id = %s AND msg <> %s"
    with connection.pipeline():
        cursors = [connection.execute(own, [asked.process_id, large]) for _ in range(3)]
    assert [cursor.fetchone() for cursor in cursors] == [(len(asked.messages),)] * 3


def test_null_parameters_and_limits(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    assert connection.execute("SELECT msg FROM log_entries WHERE msg = %s", [None]).fetchall() == []
    limited = connection.execute(f"{OWN} LIMIT %s OFFSET %s", [asked.process_id, 2, 1]).fetchall()
    assert [message for (message,) in limited] == asked.messages[1:3]


def test_prepared_statements_are_planned_once_and_run_often(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    for _ in range(7):
        rows = connection.execute(OWN, [asked.process_id], prepare=True).fetchall()
        assert [message for (message,) in rows] == asked.messages


def test_a_pipeline_answers_in_order(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    with connection.pipeline():
        cursors = [connection.execute(OWN, [asked.process_id]) for _ in range(5)]
        cursors += [connection.execute("SELECT 1")]
    assert [len(cursor.fetchall()) for cursor in cursors] == [len(asked.messages)] * 5 + [1]


def test_named_cursors_fetch_by_pieces(asked: Asked) -> None:
    with psycopg.connect(asked.gateway.dsn()) as connection, connection.cursor("mine") as cursor:
        cursor.itersize = 2
        cursor.execute(OWN, [asked.process_id])
        assert [message for (message,) in cursor] == asked.messages
        cursor.execute(OWN, [asked.process_id])
        assert cursor.fetchmany(3) == [(message,) for message in asked.messages[:3]]
        assert cursor.fetchall() == [(message,) for message in asked.messages[3:]]


def test_cursors_of_the_catalogue_fetch_by_pieces(asked: Asked) -> None:
    with psycopg.connect(asked.gateway.dsn()) as connection, connection.cursor("mine") as cursor:
        cursor.execute("SELECT n, %s FROM generate_series(1, 10) n", ["x"])
        assert cursor.fetchmany(3) == [(1, "x"), (2, "x"), (3, "x")]
        assert [n for n, _ in cursor.fetchall()] == list(range(4, 11))


def test_sql_cursors(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    run = connection.execute
    with pytest.raises(errors.NoActiveSqlTransaction):
        run("DECLARE c CURSOR FOR SELECT msg FROM log_entries")
    run("BEGIN")
    run(f"DECLARE c CURSOR FOR SELECT msg FROM log_entries WHERE process_id = '{asked.process_id}' ORDER BY time")
    assert run("FETCH 2 FROM c").fetchall() == [(message,) for message in asked.messages[:2]]
    run("MOVE FORWARD 2 IN c")
    assert run("FETCH NEXT FROM c").fetchall() == [(asked.messages[4],)]
    assert run("FETCH FORWARD ALL FROM c").fetchall() == [(message,) for message in asked.messages[5:]]
    assert run("FETCH ALL c").fetchall() == []
    run("CLOSE c")
    run("SAVEPOINT s")
    with pytest.raises(errors.InvalidCursorName):
        run("FETCH 1 FROM c")
    with pytest.raises(errors.InFailedSqlTransaction):
        run("SELECT 1")
    run("ROLLBACK TO SAVEPOINT s")
    run("DECLARE d CURSOR WITH HOLD FOR SELECT count(*) FROM log_entries")
    run("DECLARE e CURSOR FOR SELECT count(*) FROM log_entries")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        run("FETCH BACKWARD 1 FROM d")
    assert run("COMMIT").statusmessage == "ROLLBACK"
    with pytest.raises(errors.InvalidCursorName):
        run("FETCH 1 FROM e")


def test_copy_out_is_read_back(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    question = f"SELECT level, msg, NULL FROM log_entries WHERE process_id = '{asked.process_id}' ORDER BY time"
    with connection.cursor() as cursor, cursor.copy(f"COPY ({question}) TO STDOUT") as copy:
        rows = list(copy.rows())
        assert [row[1] for row in rows] == asked.messages
        assert {row[2] for row in rows} == {None}
    with connection.cursor() as cursor:
        with cursor.copy("COPY log_entries (msg) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)") as copy:
            content = b"".join(bytes(each) for each in copy).decode()
        assert content.startswith('"msg"\n')
        assert "\"it's 'quoted'\"\n" in content
        with cursor.copy("COPY (SELECT relname FROM pg_class WHERE relname = 'log_entries') TO STDOUT") as copy:
            assert list(copy.rows()) == [("log_entries",)]
    with pytest.raises(errors.ReadOnlySqlTransaction), connection.cursor() as cursor:
        cursor.execute("COPY log_entries FROM STDIN")
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("COPY log_entries TO '/tmp/never'")


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("SELECT FROM WHERE", "42601"),
        ("SELECT 'never closed", "42601"),
        ("SELECT nosuch FROM log_entries", "42703"),
        ("SELECT * FROM nosuch", "42P01"),
        ("SELECT nosuch(1)", "42883"),
        ("SELECT nosuch(msg) FROM log_entries", "42883"),
        ("SELECT 1 / (level - level) FROM log_entries", "22012"),
        ("INSERT INTO log_entries VALUES (1)", "25006"),
        ("DROP TABLE log_entries", "25006"),
        ("CREATE TEMP TABLE t (a int)", "25006"),
        ("WITH gone AS (DELETE FROM log_entries RETURNING *) SELECT * FROM gone", "0A000"),
        ("SELECT lo_create(0)", "42501"),
        ("SELECT query_to_xml('SELECT 1', true, true, '')", "42501"),
        ("SELECT pg_read_file('/etc/passwd')", "42501"),
        ("SET ROLE micromegas", "42501"),
        ("SET SESSION AUTHORIZATION micromegas", "42501"),
        ("SET nosuch = 1", "42704"),
        ("LISTEN something", "0A000"),
        ("nonsense", "42601"),
        ("SELECT * FROM instances.thread_spans", "42P01"),
        ("SELECT 1; SELECT nosuch FROM log_entries", "42703"),
        ("SELECT " + "(" * 2000 + "level" + ")" * 2000 + " FROM log_entries", "42000"),
    ],
)
def test_what_is_wrong_has_its_sqlstate_and_the_session_goes_on(
    connection: psycopg.Connection[Any], sql: str, state: str
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(sql)
    assert refused.value.sqlstate == state
    text = str(refused.value)
    assert "Traceback" not in text
    assert ".py" not in text
    assert connection.execute("SELECT count(*) > 0 FROM log_entries").fetchone() == (True,)


def test_errors_in_transactions(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.UndefinedColumn), connection.transaction():
        connection.execute("SELECT nosuch FROM log_entries")
    with connection.transaction():
        with pytest.raises(errors.UndefinedColumn), connection.transaction():
            connection.execute("SELECT nosuch FROM log_entries")
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_a_running_statement_is_cancelled(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    endless = (
        "SELECT count(*) FROM log_entries a, log_entries b, log_entries c, log_entries d, log_entries e, "
        "log_entries f, log_entries g, log_entries h, log_entries i, log_entries j, log_entries k, log_entries l"
    )
    for sql in (endless, "SELECT pg_sleep(600)"):
        over = threading.Event()

        def cancel_until_over(over: threading.Event = over) -> None:
            # one that comes before the statement cancels nothing
            while not over.wait(0.05):
                connection.cancel_safe(timeout=30)

        cancelling = threading.Thread(target=cancel_until_over)
        cancelling.start()
        with pytest.raises(errors.QueryCanceled):
            connection.execute(sql)
        over.set()
        cancelling.join(60)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_time_limits_of_a_session_hold(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET statement_timeout = '50ms'")
    with pytest.raises(errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(600)")
    with pytest.raises(errors.QueryCanceled):
        connection.execute(
            "SELECT count(*) FROM log_entries a, log_entries b, log_entries c, log_entries d, log_entries e, "
            "log_entries f, log_entries g, log_entries h, log_entries i, log_entries j, log_entries k, log_entries l"
        )
    connection.execute("RESET statement_timeout")
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_range_is_set_as_any_other_setting(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    count = f"SELECT count(*) FROM log_entries WHERE process_id = '{asked.process_id}'"
    assert connection.execute(count).fetchone() == (len(asked.messages),)
    connection.execute("SET micromegas.range_end = '2000-01-01T00:00:00Z'")
    assert connection.execute(count).fetchone() == (0,)
    assert connection.execute("SHOW micromegas.range_end").fetchone() == ("2000-01-01T00:00:00Z",)
    connection.execute("RESET micromegas.range_end")
    assert connection.execute(count).fetchone() == (len(asked.messages),)
    with pytest.raises(errors.InvalidParameterValue):
        connection.execute("SET micromegas.range_begin = 'yesterday or so'")
    assert connection.execute(count).fetchone() == (len(asked.messages),)
    connection.execute("SELECT set_config('micromegas.range_begin', '2200-01-01', false)")
    assert connection.execute(count).fetchone() == (0,)
    connection.execute("RESET ALL")
    assert connection.execute(count).fetchone() == (len(asked.messages),)
    with psycopg.connect(asked.gateway.dsn(options="-c micromegas.range_end=2000-01-01")) as bounded:
        assert bounded.execute(count).fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match=r"micromegas\.range_begin"):
        psycopg.connect(asked.gateway.dsn(options="-c micromegas.range_begin=soon"))


def test_instances_are_tables_by_name(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    by_function = connection.execute(f"SELECT msg FROM view_instance('log_entries', '{asked.process_id}')")
    assert {message for (message,) in by_function} == set(asked.messages)
    by_name = connection.execute(f'SELECT msg FROM public."log_entries:{asked.process_id}" ORDER BY time')
    assert [message for (message,) in by_name] == asked.messages
    qualified = connection.execute(
        f'SELECT l.level, p.exe FROM "log_entries:{asked.process_id}" l JOIN processes p ON p.process_id = l.process_id'
    )
    assert len(qualified.fetchall()) == len(asked.messages)


def test_what_drivers_write_is_understood(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    own = f"FROM log_entries WHERE process_id = '{asked.process_id}'::uuid"
    for condition in (
        "level = ANY ('{0,1,2,3,4,5,6}'::integer[])",
        "msg <> ALL ('{x,\"y,z\"}'::text[])",
        "msg OPERATOR(pg_catalog.~~) '%e%'",
        "pg_catalog.length(msg) >= 0 AND level IS NOT NULL AND msg ~~ '%e%'",
        "time >= '2000-01-01 00:00:00+00'::timestamp with time zone",
        "properties ->> 'nosuch' IS NULL",
        "(log_entries.properties->>'nosuch'::text) IS NULL",
    ):
        row = connection.execute(f"SELECT count(*) {own} AND ({condition})".replace("%", "%%")).fetchone()
        assert row is not None
        assert row[0] > 0, condition


def test_names_of_three_parts_and_the_limits_of_the_standard(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    own = f"""WHERE process_id = '{asked.process_id}' ORDER BY "time" """
    for sql, expected in (
        (
            f'SELECT "micromegas"."public"."log_entries"."msg" FROM "micromegas"."public"."log_entries" {own}',
            asked.messages,
        ),
        (f"SELECT micromegas.public.log_entries.msg FROM micromegas.public.log_entries {own}", asked.messages),
        (f"SELECT msg FROM log_entries {own} FETCH FIRST 3 ROWS ONLY", asked.messages[:3]),
        (f"SELECT msg FROM log_entries {own} FETCH NEXT ROW ONLY", asked.messages[:1]),
        (f"SELECT msg FROM log_entries {own} OFFSET 2 ROWS FETCH NEXT 2 ROWS ONLY", asked.messages[2:4]),
    ):
        assert [message for (message,) in connection.execute(sql)] == expected, sql


def test_asynchronous_sessions_share_a_gateway(asked: Asked) -> None:
    async def count() -> Any:
        async with await psycopg.AsyncConnection.connect(asked.gateway.dsn()) as connection:
            cursor = await connection.execute(OWN, [asked.process_id])
            return [message for (message,) in await cursor.fetchall()]

    async def several() -> list[Any]:
        return await asyncio.gather(*(count() for _ in range(8)))

    assert asyncio.run(several()) == [asked.messages] * 8


def test_properties_are_jsonb(connection: psycopg.Connection[Any]) -> None:
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        rows = cursor.execute("SELECT properties FROM log_entries").fetchall()
        assert any(properties for (properties,) in rows)
        for (properties,) in rows:
            assert isinstance(properties, dict)
            json.dumps(properties)


def test_a_default_range_is_told(asked: Asked, connection: psycopg.Connection[Any]) -> None:
    told: list[str] = []
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    count = f"SELECT count(*) FROM log_entries WHERE process_id <> '{asked.process_id}'"
    (everything,) = connection.execute(count).fetchone() or (0,)
    assert everything > 0
    assert told == []
    connection.execute("SET micromegas.default_lookback = '1s'")
    assert connection.execute(count).fetchone() == (0,)
    assert len(told) == 1
    assert "micromegas.default_lookback" in told[0]
    assert connection.execute(f"{count} AND time > '2000-01-01'").fetchone() == (everything,)
    with pytest.raises(errors.InvalidParameterValue):
        connection.execute("SET micromegas.default_lookback = 'a while'")
    connection.execute("SET micromegas.default_lookback = 'off'")
    assert connection.execute(count).fetchone() == (everything,)
    assert len(told) == 1
