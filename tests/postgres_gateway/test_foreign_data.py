"""postgres_fdw: a real PostgreSQL that joins its own tables with the views of the lake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked


@pytest.fixture
def federated(asked: Asked, postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with the lake's views as foreign tables."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'").fetchone() is None:
            pytest.skip("the PostgreSQL of this machine has no postgres_fdw (Debian: package postgresql)")
        connection.execute("CREATE EXTENSION postgres_fdw")
        connection.execute(
            "CREATE SERVER lake FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', "
            f"port '{asked.gateway.port}', dbname 'micromegas', fetch_size '3', "
            "options '-c micromegas.default_lookback=off')"
        )
        connection.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER lake OPTIONS (user 'anybody')")
        connection.execute("CREATE SCHEMA lake")
        connection.execute("IMPORT FOREIGN SCHEMA public FROM SERVER lake INTO lake")
        yield connection
        connection.execute("SELECT postgres_fdw_disconnect_all()")


def remote_sql(connection: psycopg.Connection[Any], sql: str) -> str:
    lines = [line for (line,) in connection.execute(f"EXPLAIN VERBOSE {sql}").fetchall()]
    return next(line.split("Remote SQL: ", 1)[1] for line in lines if "Remote SQL: " in line)


def test_rows_joins_filters_and_limits(asked: Asked, federated: psycopg.Connection[Any]) -> None:
    run = federated.execute
    own = f"FROM lake.log_entries WHERE process_id = '{asked.process_id}'"
    rows = run(f"SELECT msg {own} ORDER BY time").fetchall()
    assert [message for (message,) in rows] == asked.messages
    assert run(f"SELECT msg {own} AND msg LIKE '%quoted%'").fetchall() == [("it's 'quoted'",)]
    assert "~~" in remote_sql(federated, f"SELECT msg {own} AND msg LIKE '%quoted%'")
    limited = f"SELECT msg {own} ORDER BY time LIMIT 2"
    assert len(run(limited).fetchall()) == 2
    assert "LIMIT" in remote_sql(federated, limited)
    listed = f"SELECT count(*) {own} AND level IN (0, 1, 2, 3, 4, 5) AND time > '2000-01-01'"
    assert run(listed).fetchone() == (len(asked.messages),)
    assert "count(*)" in remote_sql(federated, listed)
    assert "ANY" in remote_sql(federated, listed)
    run("CREATE TABLE owners (process_id text PRIMARY KEY, owner text)")
    run("INSERT INTO owners VALUES (%s, 'ann')", [asked.process_id])
    joined = run(
        "SELECT o.owner, count(*), max(p.exe) FROM owners o JOIN lake.log_entries l USING (process_id) "
        "JOIN lake.processes p USING (process_id) GROUP BY o.owner"
    ).fetchall()
    assert joined == [("ann", len(asked.messages), "program-1")]
    assert run("SELECT properties ->> 'nosuch' FROM lake.log_entries LIMIT 1").fetchall() == [(None,)]
    sums = run(f"SELECT sum(value) FROM lake.measures WHERE process_id = '{asked.process_id}'").fetchone()
    assert sums == (sum(asked.values),)


def test_parameters_transactions_and_estimates(asked: Asked, federated: psycopg.Connection[Any]) -> None:
    run = federated.execute
    run("PREPARE by_level(int) AS SELECT count(*) FROM lake.log_entries WHERE level >= $1")
    for _ in range(7):
        assert run("EXECUTE by_level(0)").fetchone() == run("SELECT count(*) FROM lake.log_entries").fetchone()
    with federated.transaction():
        assert run("SELECT count(*) > 0 FROM lake.log_entries").fetchone() == (True,)
        with pytest.raises(psycopg.Error), federated.transaction():
            run("SELECT 1 / (level - level) FROM lake.log_entries WHERE msg ~~ '%'").fetchall()
        assert run("SELECT count(*) > 0 FROM lake.log_entries").fetchone() == (True,)
    run("ALTER SERVER lake OPTIONS (ADD use_remote_estimate 'true')")
    assert run("SELECT count(*) > 0 FROM lake.log_entries").fetchone() == (True,)
    run("ANALYZE lake.log_stats")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run("INSERT INTO lake.streams (stream_id) VALUES ('x')")


def test_a_range_and_an_instance_by_options(asked: Asked, federated: psycopg.Connection[Any]) -> None:
    run = federated.execute
    run("ALTER SERVER lake OPTIONS (SET options '-c micromegas.range_end=2000-01-01')")
    assert run("SELECT count(*) FROM lake.log_entries WHERE time < now() + interval '9 years'").fetchone() == (0,)
    run("ALTER SERVER lake OPTIONS (DROP options)")
    run("IMPORT FOREIGN SCHEMA instances LIMIT TO (thread_spans, async_events) FROM SERVER lake INTO lake")
    with pytest.raises(psycopg.Error, match="thread_spans:"):
        run("SELECT * FROM lake.thread_spans")
    # the instance's name in the lake is what an option of the foreign table says
    run(f"ALTER FOREIGN TABLE lake.thread_spans OPTIONS (SET table_name 'thread_spans:{asked.thread_id}')")
    assert run("SELECT count(*) FROM lake.thread_spans WHERE \"begin\" > '2000-01-01'").fetchone() == (0,)


def test_what_lost_its_time_on_the_way_goes_back_a_little(asked: Asked, federated: psycopg.Connection[Any]) -> None:
    run = federated.execute
    old = "SELECT count(*) FROM lake.log_entries WHERE process_id <> %s"
    (everything,) = run(old, [asked.process_id]).fetchone() or (0,)
    assert everything > 0
    run("ALTER SERVER lake OPTIONS (SET options '-c micromegas.default_lookback=1s')")
    assert run(old, [asked.process_id]).fetchone() == (0,)
    # now() stays with the one that asks; a constant doesn't
    assert run(f"{old} AND time > now() - interval '1000 weeks'", [asked.process_id]).fetchone() == (0,)
    assert run(f"{old} AND time > '2000-01-01'", [asked.process_id]).fetchone() == (everything,)
    assert run("SELECT count(*) > 1 FROM lake.processes").fetchone() == (True,)


def test_what_is_pushed_means_what_it_means_here(federated: psycopg.Connection[Any]) -> None:
    """Conditions that PostgreSQL sends on, beside the same ones over a copy of the rows."""
    run = federated.execute
    run("CREATE TABLE copied AS SELECT * FROM lake.log_entries")
    conditions = [
        r"msg IN ('hello', 'NULL', 'it''s ''quoted''', E'tab\tnew\nline \\ back')",
        "level = ANY (ARRAY[3, NULL]) OR level <> ALL (ARRAY[1, 2, 4])",
        "properties <> '{}'::jsonb",
        "properties = '{}'::jsonb AND msg SIMILAR TO '%(E|ö)%'",
        "time < 'infinity' AND (level + 1) * 2 % 3 <> 0 AND coalesce(nullif(msg, 'hello'), 'x') ~~* '%O%'",
        "CASE WHEN level > 3 THEN upper(msg) = 'HELLO' ELSE true END",
    ]
    for option in ("", "ALTER SERVER lake OPTIONS (ADD use_remote_estimate 'true', ADD async_capable 'true')"):
        run(option.encode())
        for condition in conditions:
            here, there = (
                run(
                    f'SELECT level, msg FROM {table} WHERE {condition} ORDER BY msg COLLATE "C", level'.encode()
                ).fetchall()
                for table in ("copied", "lake.log_entries")
            )
            assert there == here, condition
            assert here, condition
    assert "properties <>" in remote_sql(federated, f"SELECT 1 FROM lake.log_entries WHERE {conditions[2]}")
    aggregates = "count(DISTINCT level), bool_and(level > 2), array_agg(level ORDER BY level), variance(level)::float8"
    for asked_for in (f"SELECT {aggregates} FROM", "SELECT level, count(*) FROM"):
        grouped = " GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC" if "level, count" in asked_for else ""
        here, there = (
            run(f"{asked_for} {table}{grouped}".encode()).fetchall() for table in ("copied", "lake.log_entries")
        )
        assert [row[:3] for row in there] == [row[:3] for row in here]
        assert [row[3:] for row in there] == [pytest.approx(row[3:]) for row in here]
