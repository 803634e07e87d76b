"""The audit of what sessions ask the lake: one line each, whatever becomes of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked, RunningGateway
from psycopg import errors
from query.traffic import MadeTraffic

from micromegas.config import ApiKey, LakeSettings
from micromegas.lake import Lake

LOGGER = "flightsql_query_audit"
COUNT = "SELECT count(*) FROM log_entries"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The audit's lines since they were read last."""
    caplog.set_level(logging.INFO, LOGGER)

    def read() -> list[dict[str, Any]]:
        told = [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]
        caplog.clear()
        return told

    return read


def test_a_question_is_told_with_its_caller_and_its_cost(
    asked: Asked, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with psycopg.connect(asked.gateway.dsn(application_name="a tool"), autocommit=True) as connection:
        for parameters, prepared in ((None, False), ([], True)):
            connection.execute("SET micromegas.range_begin = '1970-01-01T00:00:01Z'")
            sql = f"SELECT msg FROM log_entries WHERE process_id = '{asked.process_id}'"
            assert len(connection.execute(sql, parameters, prepare=prepared).fetchall()) == len(asked.messages)
            (line,) = lines()
            assert (
                line.items()
                >= {
                    "client_ip": "127.0.0.1",
                    "client": "postgresql a tool",
                    "user": "anybody",
                    "service_account": False,
                    "sql": sql,
                    "range_begin": 10**9,
                    "status": "ok",
                    "output_rows": len(asked.messages),
                }.items()
            )
            assert line["output_bytes"] > sum(len(message.encode()) for message in asked.messages)
            assert line["total_ms"] >= line["setup_ms"] >= 0
        connection.execute("SET application_name = 'renamed'")
        connection.execute(COUNT)
        assert lines()[0]["client"] == "postgresql renamed"


def test_what_postgresql_answers_is_not_told(
    connection: psycopg.Connection[Any], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    connection.execute("SELECT relname FROM pg_class")
    connection.execute("SHOW server_version")
    with pytest.raises(errors.UndefinedFunction):
        connection.execute("SELECT nosuch(1)")
    assert lines() == []


@pytest.mark.parametrize(
    ("sql", "state", "error_class"),
    [
        ("SELECT nosuch FROM log_entries", "42703", "user"),
        ("SELECT 1 / (level - level) FROM log_entries", "22012", "user"),
        (
            "SELECT count(*) FROM " + ", ".join(f"log_entries {letter}" for letter in "abcdefghijkl"),
            "57014",
            "resource",
        ),
    ],
)
def test_errors_name_the_question_that_the_audit_tells_of(
    connection: psycopg.Connection[Any],
    lines: Callable[[], list[dict[str, Any]]],
    sql: str,
    state: str,
    error_class: str,
) -> None:
    connection.execute("SET statement_timeout = 200")
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(sql)
    assert refused.value.sqlstate == state
    (line,) = lines()
    assert (line["status"], line["error_class"], line["sql"]) == ("error", error_class, sql)
    named = re.search(r"\(query_id=(.*?)\)", str(refused.value))
    assert named is not None
    assert named[1] == line["query_id"]


def test_what_is_left_early_is_told_as_incomplete(
    asked: Asked, lines: Callable[[], list[dict[str, Any]]], connection: psycopg.Connection[Any]
) -> None:
    own = f"SELECT msg FROM log_entries WHERE process_id = '{asked.process_id}' ORDER BY time"
    for scrolls in ("NO SCROLL", "SCROLL"):
        for fetched, status in (("2", "incomplete"), ("ALL", "ok")):
            with connection.transaction():
                connection.execute(f"DECLARE c {scrolls} CURSOR FOR {own}")
                connection.execute(f"FETCH {fetched} FROM c")
            (line,) = lines()
            assert (line["status"], line["sql"]) == (status, own)
            assert line["output_rows"] == (len(asked.messages) if fetched == "ALL" else 2)
    with connection.cursor() as cursor, cursor.copy(f"COPY ({own}) TO STDOUT") as copy:
        for _ in copy:
            pass
    (line,) = lines()
    assert (line["status"], line["output_rows"], line["sql"]) == ("ok", len(asked.messages), own)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as lake,
        RunningGateway(lake, api_keys=(ApiKey("dashboards", "k3y"),)) as gateway,
    ):
        MadeTraffic(lake).logs("hello")
        yield gateway


def test_the_key_names_the_service_account(guarded: RunningGateway, lines: Callable[[], list[dict[str, Any]]]) -> None:
    with psycopg.connect(guarded.dsn(user="dashboards", password="k3y"), autocommit=True) as connection:
        connection.execute(COUNT)
    (line,) = lines()
    assert (line["service_account"], line["service_account_name"]) == (True, "dashboards")
