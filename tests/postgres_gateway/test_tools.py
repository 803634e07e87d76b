"""What tools ask of the views, beside a PostgreSQL with the same rows. Grafana's statements have the shapes that are
read in its source (`pkg/tsdb/grafana-postgresql-datasource`: `schema.go`, `macros.go`); those of the others are shaped
after what these tools are known to send, and were not recorded from them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy
from postgres_gateway.beside import Both
from postgres_gateway.gateway import Asked
from sqlalchemy.engine.reflection import ObjectKind, ObjectScope

QUESTIONS = {
    "Grafana's values of columns": """SELECT 'msg' AS col_name, "msg"::text AS val FROM (SELECT DISTINCT "msg" FROM
        "public"."log_entries" WHERE "msg" IS NOT NULL ORDER BY "msg" LIMIT 100) sub_0 UNION ALL SELECT 'level' AS
        col_name, "level"::text AS val FROM (SELECT DISTINCT "level" FROM "public"."log_entries" WHERE
        "level" IS NOT NULL ORDER BY "level" LIMIT 100) sub_1 ORDER BY 1, 2""",
    "Grafana's $__timeGroup and $__timeFilter": """SELECT floor(extract(epoch from time)/300)*300 AS "time",
        count(level) AS "value", level::text AS metric FROM log_entries WHERE time BETWEEN '2001-01-01T00:00:00Z' AND
        '2199-01-01T00:00:00.123Z' GROUP BY 1, 3 ORDER BY 1, 3""",
    "Grafana's builder": "SELECT COUNT(level), msg FROM log_entries GROUP BY msg ORDER BY msg LIMIT 50",
    "Metabase's summary by month": """SELECT DATE_TRUNC('month', "public"."log_entries"."time") AS "time", COUNT(*) AS
        "count" FROM "public"."log_entries" WHERE "public"."log_entries"."time" >= DATE_TRUNC('day', (NOW() +
        INTERVAL '-3000 day')) AND "public"."log_entries"."time" < DATE_TRUNC('day', (NOW() + INTERVAL '3000 day'))
        GROUP BY DATE_TRUNC('month', "public"."log_entries"."time")
        ORDER BY DATE_TRUNC('month', "public"."log_entries"."time") ASC""",
    "Metabase's question about a question": """SELECT "source"."level" AS "level", "source"."count" AS "count" FROM (
        SELECT
        "public"."log_entries"."level" AS "level", COUNT(*) AS "count" FROM "public"."log_entries" GROUP BY
        "public"."log_entries"."level") AS "source" WHERE "source"."count" > 0 ORDER BY 1 LIMIT 1048575""",
    "Metabase's fingerprints": """SELECT SUBSTRING("public"."log_entries"."msg", 1, 1234) AS "substring1",
        "public"."log_entries"."level" AS "level" FROM "public"."log_entries" ORDER BY 1, 2 LIMIT 10000""",
    "Metabase's right to see a table": 'SELECT TRUE AS "_" FROM "public"."log_entries" WHERE 1 <> 1 LIMIT 0',
    "Superset's series": """SELECT DATE_TRUNC('day', time) AS __timestamp, sum(level) AS "SUM(level)" FROM (select time,
        level, msg from log_entries) AS virtual_table JOIN (SELECT msg AS msg__, count(*) AS mme_inner__ FROM (select
        msg from log_entries) AS virtual_table GROUP BY msg ORDER BY mme_inner__ DESC LIMIT 100) AS anon_1
        ON msg = msg__ GROUP BY DATE_TRUNC('day', time) ORDER BY "SUM(level)" DESC LIMIT 50000""",
    "Superset's table": """SELECT DATE_TRUNC('day', time) AS __timestamp, level AS level, COUNT(*) AS count FROM
        public.log_entries WHERE time >= '2020-01-01 00:00:00.000000' AND time < '2030-01-01 00:00:00.000000'
        GROUP BY DATE_TRUNC('day', time), level ORDER BY count DESC, 1 LIMIT 10000""",
    "Tableau's measures": """SELECT CAST("log_entries"."level" AS INTEGER) AS "level", "log_entries"."msg" AS "msg",
        SUM(1) AS "sum:Number of Records:ok" FROM "public"."log_entries" "log_entries" GROUP BY 1, 2
        HAVING (COUNT(1) > 0) ORDER BY 1, 2""",
    "Tableau's days": """SELECT CAST(DATE_TRUNC( 'DAY', CAST("log_entries"."time" AS TIMESTAMP) ) AS DATE) AS
        "tdy:time:ok", COUNT(DISTINCT "log_entries"."msg") AS "ctd:msg:ok" FROM "public"."log_entries" "log_entries"
        GROUP BY 1 ORDER BY 1""",
    "Tableau's ranges": """SELECT MIN("log_entries"."time") AS "TEMP1", MAX("log_entries"."time") AS "TEMP2" FROM
        "public"."log_entries" "log_entries" HAVING (COUNT(1) > 0)""",
    "DBeaver's count": "SELECT COUNT(*) FROM (SELECT msg FROM log_entries) dbvrcnt",
    "DBeaver's grouping": "SELECT msg, COUNT(*) FROM (SELECT msg, level FROM log_entries) _x GROUP BY msg ORDER BY msg",
    "DBeaver's distinct values": """SELECT "level", count(*) "cnt" FROM public.log_entries GROUP BY "level"
        ORDER BY cnt DESC""",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_what_tools_ask_of_views_is_answered_as_postgresql_answers_it(both: Both, question: str) -> None:
    told, _ = both.say(question)
    assert told.startswith("SELECT")


def test_tableaus_cursors(both: Both) -> None:
    ask = 'SELECT "log_entries"."msg" AS "msg" FROM "public"."log_entries" "log_entries" ORDER BY 1'
    both.say(f'BEGIN; DECLARE "SQL_CUR0x1" CURSOR WITH HOLD FOR {ask}; FETCH 3 IN "SQL_CUR0x1"')
    both.say('FETCH 100 IN "SQL_CUR0x1"')
    both.say('CLOSE "SQL_CUR0x1"; COMMIT')


def test_all_that_sqlalchemy_reflects(asked: Asked) -> None:
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://anybody@127.0.0.1:{asked.gateway.port}/micromegas")
    inspector: Any = sqlalchemy.inspect(engine)
    kinds = ("pk_constraint", "foreign_keys", "indexes", "unique_constraints", "check_constraints", "table_comment")
    for kind in (*kinds, "columns", "table_options"):
        for schema, table in ((None, "log_entries"), ("instances", "thread_spans")):
            told = getattr(inspector, f"get_{kind}")(table, schema=schema)
            # views are tables without keys, indexes or comments
            assert bool(told) == (
                kind == "columns" or (isinstance(told, dict) and kind in ("pk_constraint", "table_comment"))
            )
        everything = getattr(inspector, f"get_multi_{kind}")(kind=ObjectKind.ANY, scope=ObjectScope.ANY)
        assert {(None, "log_entries"), (None, "streams")} <= set(everything)
    columns = {column["name"]: column for column in inspector.get_columns("log_entries")}
    assert isinstance(columns["time"]["type"], sqlalchemy.TIMESTAMP)
    assert isinstance(columns["properties"]["type"], sqlalchemy.JSON)
    for kind in ("view", "materialized_view", "temp_table", "temp_view", "sequence", "foreign_table"):
        assert getattr(inspector, f"get_{kind}_names")() == []
    assert inspector.get_enums() == inspector.get_domains() == []
    assert inspector.has_table("log_entries")
    assert not inspector.has_table("nosuch")
    assert inspector.has_schema("instances")
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine, views=True)
    logs = metadata.tables["log_entries"]
    with engine.connect() as connection:
        user = logs.c.properties["user"]
        asks: list[Any] = [
            sqlalchemy.select(sqlalchemy.exists(sqlalchemy.select(logs.c.msg).where(logs.c.level == 3))),
            sqlalchemy.select(user.astext).where(user.astext == "alice"),
            sqlalchemy.select(logs.c.msg).where(logs.c.level.in_([3, 4]), logs.c.msg.regexp_match("^H", flags="i")),
            sqlalchemy.select(sqlalchemy.func.count().filter(logs.c.level == 3), sqlalchemy.func.count()),
        ]
        answers = [connection.execute(each).fetchall() for each in asks]
        assert answers[0][0][0] is True
        assert answers[1] == [("alice",)]
        assert answers[2]
        (row,) = connection.execute(sqlalchemy.select(logs.c.properties["user"]).where(user.astext == "alice"))
        assert row[0] == "alice"
    engine.dispose()


def test_numbers_of_rows_are_whole_numbers(connection: psycopg.Connection[Any]) -> None:
    over = "OVER (ORDER BY time, msg)"
    asked = f"SELECT row_number() {over}, rank() {over}, ntile(2) {over} FROM log_entries LIMIT 1"
    row = connection.execute(asked.encode()).fetchone()
    assert row is not None
    assert [type(each) for each in row] == [int, int, int]
