"""How statements are read before anybody runs them: in time that grows as the text does, and beside other sessions."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import threading
from pathlib import Path

import psycopg
import pytest
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, message, state_of, text
from psycopg import errors

from micromegas.query.functions.sql_text import Token
from micromegas.serve.postgres.dialect import Known, engine_sql
from micromegas.serve.postgres.edits import Edits
from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.lake_rows import aside
from micromegas.serve.postgres.result_names import named
from micromegas.serve.postgres.session import MAX_STATEMENT

KNOWN = Known(frozenset(), frozenset(["properties"]), frozenset(["time"]))


def looks_at(piece: str, times: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often tokens are looked at to read a statement of so many pieces."""
    looked = 0
    at = Edits.at

    def counted(edits: Edits, place: int) -> Token | None:
        nonlocal looked
        looked += 1
        return at(edits, place)

    with monkeypatch.context() as patched:
        patched.setattr(Edits, "at", counted)
        with contextlib.suppress(PostgresError):
            engine_sql(named("SELECT " + piece * times).sql, KNOWN)
    return looked


@pytest.mark.parametrize(
    "piece",
    [
        "a->>'b',",
        "a->'b'->'c'->",
        "OPERATOR(pg_catalog.",
        "x = any('{1}'::",
        "(",
        "(SELECT ",
        "1 FROM (SELECT ",
        "cast(",
        "mod(1,",
        "to_char(time,",
        "extract(second from ",
        "::int",
        "CASE WHEN a THEN 1 ELSE ",
        "exists(",
        "count(*), level, level::text,",
        "a.",
        "= 'now'",
        "['b']",
        "row_number() over (",
        "a IS DISTINCT FROM ",
        "UNION SELECT ",
    ],
)
def test_what_is_read_takes_no_longer_than_it_is(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = looks_at(piece, 300, monkeypatch), looks_at(piece, 1200, monkeypatch)
    assert many <= 5 * few


def test_brackets_within_each_other_are_read() -> None:
    for begin, end in (
        ("(", ")"),
        ("(SELECT ", ")"),
        ("cast(", " AS int)"),
        ("(", ")::int"),
        ("CASE WHEN a THEN ", " END"),
    ):
        sql = f"SELECT {begin * 5000}1{end * 5000}, count(*) FROM log_entries"
        assert named(sql).names(["x", "y"])[1] == "count"
        assert engine_sql(sql, KNOWN).count("FROM log_entries") == 1


def test_long_statements_are_read_in_another_thread() -> None:
    async def where(sql: str) -> int:
        return await aside(lambda _: threading.get_ident(), sql)

    assert asyncio.run(where("short")) == threading.get_ident()
    assert asyncio.run(where("x" * 100_000)) != threading.get_ident()


@pytest.mark.parametrize("megabytes", [2, 3, 20, 100])
def test_statements_of_many_megabytes_are_refused_and_the_session_goes_on(asked: Asked, megabytes: int) -> None:
    sql = b"SELECT level FROM log_entries WHERE msg IN ('" + b"x" * (megabytes * 1_000_000) + b"')"
    with psycopg.connect(asked.gateway.dsn(), autocommit=True) as connection:
        for parameters in (None, []):
            with pytest.raises(errors.ProgramLimitExceeded, match="at most"):
                connection.execute(sql, parameters)
            assert connection.execute("SELECT count(*) > 0 FROM log_entries").fetchone() == (True,)
        connection.execute("BEGIN")
        with pytest.raises(errors.ProgramLimitExceeded):
            connection.execute(sql)
        assert connection.execute("COMMIT").statusmessage == "ROLLBACK"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_message_that_is_too_long_is_taken_and_not_kept(asked: Asked) -> None:
    """More than the machine should have to hold for a client that says it."""
    with RawClient(asked.gateway.port) as client:
        client.start()
        before = resident_bytes()
        piece = b"\0" * 1_000_000
        for kind in (b"P", b"B", b"Q"):
            client.send(kind + (300_000_000 + 4).to_bytes(4, "big"))
            for _ in range(300):
                client.send(piece)
            assert resident_bytes() < before + 100_000_000
            if kind != b"Q":
                client.send(message(b"S"))
            answers = client.until(b"Z")
            assert [state_of(body) for kind, body in answers if kind == b"E"] == ["54000"]


def test_too_long_statements_are_refused_and_the_session_goes_on(asked: Asked) -> None:
    sql = "SELECT 1 --" + "x" * MAX_STATEMENT
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text(sql))
        assert [state_of(body) for kind, body in client.until(b"Z") if kind == b"E"] == ["54000"]
        client.send(message(b"P", text(""), text(sql), b"\0\0") + message(b"S"))
        assert [state_of(body) for kind, body in client.until(b"Z") if kind == b"E"] == ["54000"]
        client.say(b"Q", text("SELECT 1"))
        assert [kind for kind, _ in client.until(b"Z")] == [b"T", b"D", b"C", b"Z"]
