"""The protocol itself, against a client that says what no driver would."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from query.asking import ask

from micromegas.serve.postgres.shadow import ShadowError

SYNC = message(b"S")


def assert_alive(asked: Asked) -> None:
    with psycopg.connect(asked.gateway.dsn()) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM log_entries").fetchone() == (True,)


def test_portals_give_rows_by_pieces_within_a_transaction(asked: Asked) -> None:
    sql = f"SELECT msg FROM log_entries WHERE process_id = '{asked.process_id}' ORDER BY time"
    for question, count in ((sql, len(asked.messages)), ("SELECT n FROM generate_series(1, 5) n", 5)):
        with RawClient(asked.gateway.port) as client:
            client.start()
            client.say(b"Q", text("BEGIN"))
            client.until(b"Z")
            client.say(b"P", text("s"), text(question), b"\0\0")
            client.say(b"B", text("p"), text("s"), b"\0\0\0\0\0\0")
            seen = 0
            for last in [False] * (count // 2) + [True]:
                client.send(message(b"E", text("p"), struct.pack("!i", 2)) + SYNC)
                answers = client.until(b"Z")
                assert answers[-1] == (b"Z", b"T")
                kinds = [kind for kind, _ in answers]
                seen += kinds.count(b"D")
                assert (b"C" in kinds) == last
                assert (b"s" in kinds) == (not last)
            assert seen == count
            client.send(message(b"C", b"P", text("p")) + message(b"E", text("p"), b"\0\0\0\0") + SYNC)
            answers = client.until(b"Z")
            assert answers[0][0] == b"3"
            assert state_of(answers[1][1]) == "34000"
            assert answers[-1] == (b"Z", b"E")


def test_after_an_error_everything_is_skipped_to_the_next_sync(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        for sql in ("SELECT nosuch FROM log_entries", "SELECT nosuch", "SHOW nosuch FROM"):
            bad = message(b"P", text(""), text(sql), b"\0\0")
            good = message(b"P", text(""), text("SELECT 1"), b"\0\0")
            client.send(bad + good + message(b"E", text(""), b"\0\0\0\0") + SYNC)
            assert [kind for kind, _ in client.until(b"Z")] == [b"E", b"Z"]
            client.send(
                good + message(b"B", text(""), text(""), b"\0\0\0\0\0\0") + message(b"E", text(""), b"\0\0\0\0")
            )
            client.send(SYNC)
            assert [kind for kind, _ in client.until(b"Z")] == [b"1", b"2", b"D", b"C", b"Z"]


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (message(b"B", text(""), text("nosuch"), b"\0\0\0\0\0\0"), "26000"),
        (message(b"E", text("nosuch"), b"\0\0\0\0"), "34000"),
        (message(b"D", b"S", text("nosuch")), "26000"),
        (message(b"D", b"X", text("")), "08P01"),
        (message(b"C", b"X", text("")), "08P01"),
        (message(b"P", text(""), b"no end"), "08P01"),
        (message(b"P", text(""), text("SELECT 1; SELECT 2"), b"\0\0"), "42601"),
        (message(b"P", text(""), b"SELECT '\xff'\0", b"\0\0"), "22021"),
        (message(b"P", text(""), text("SELECT level FROM log_entries WHERE level = $0"), b"\0\0"), "42P02"),
        (message(b"P", text(""), text("SELECT level FROM log_entries WHERE level = $99999999999"), b"\0\0"), "42P02"),
        (message(b"F", struct.pack("!i", 1)), "0A000"),
    ],
)
def test_what_does_not_fit_is_an_error_and_the_session_goes_on(asked: Asked, content: bytes, state: str) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(content + SYNC)
        answers = client.until(b"Z")
        assert [kind for kind, _ in answers] == [b"E", b"Z"]
        assert state_of(answers[0][1]) == state
        client.say(b"Q", text("SELECT 1"))
        assert [kind for kind, _ in client.until(b"Z")] == [b"T", b"D", b"C", b"Z"]


@pytest.mark.parametrize(
    ("rest", "state"),
    [
        (b"\0\0\0\0\0\0", "08P01"),
        (b"\0\0\0\x01\0\0\0\x03abc\0\0", "22P02"),
        (b"\0\x01\0\x01\0\x01\0\0\0\x03abc\0\0", "22P03"),
        (b"\0\x01\0\x07\0\x01\0\0\0\x011\0\0", "22023"),
        (b"\0\0\0\x01\x7f\xff\xff\xff1\0\0", "08P01"),
        (b"\0\0\0\x01\0\0\0\x011\0\x03\0\0\0\0\0\0", "08P01"),
    ],
)
def test_bound_values_that_are_none(asked: Asked, rest: bytes, state: str) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"P", text(""), text("SELECT msg FROM log_entries WHERE level = $1"), b"\0\0")
        client.send(message(b"B", text(""), text(""), rest) + message(b"E", text(""), b"\0\0\0\0") + SYNC)
        answers = client.until(b"Z")
        assert [state_of(body) for kind, body in answers if kind == b"E"] == [state]


@pytest.mark.parametrize(
    "content",
    [
        b"Q\x7f\xff\xff\xff",
        b"Q\xff\xff\xff\xff",
        b"\x00\x00\x00\x00\x04",
        b"y\x00\x00\x00\x04",
        b"GET / HTTP/1.1\r\n\r\n",
        message(b"p", b"x"),
    ],
)
def test_what_is_no_message_ends_the_session_alone(asked: Asked, content: bytes) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(content)
        answers = client.rest()
        assert answers[-1][0] == b"E"
        assert b"FATAL" in answers[-1][1]
    assert_alive(asked)


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x04",
        b"\x7f\xff\xff\xff\0\3\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        startup({"user": "x"}, 0x20000),
        startup({}),
        startup({"user": "x", "replication": "true"}),
        startup({"user": "x", "client_encoding": "LATIN1"}),
        startup({"user": "x", "options": "-c nosuch=1"}),
        struct.pack("!iiii", 16, 80877102, 1, 1),
    ],
)
def test_wrong_beginnings(asked: Asked, content: bytes) -> None:
    with RawClient(asked.gateway.port) as client:
        client.send(content)
        answers = client.rest()
        assert all(kind in (b"E", b"R", b"N") for kind, _ in answers)
    assert_alive(asked)


def test_encryption_that_is_not_offered_is_declined(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        for code in (80877103, 80877104):
            client.send(struct.pack("!ii", 8, code))
            assert client.socket.recv(1) == b"N"
        client.start()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_garbage_after_the_login_never_harms_others(asked: Asked, seed: int, count: int) -> None:
    chance = random.Random(seed)
    garbage = [
        message(chance.choice(b"QPBDECSHFdcfXp").to_bytes(), chance.randbytes(chance.choice([0, 1, 4, 9, 40])))
        for _ in range(count)
    ]
    with RawClient(asked.gateway.port) as client:
        client.start()
        # a session that is ended before it was read to its end may be ended by a reset
        with contextlib.suppress(ConnectionError):
            client.send(b"".join(garbage))
            client.socket.shutdown(socket.SHUT_WR)
            for kind, body in client.rest():
                assert kind in b"ZETDCI123nNtsGS", (kind, body)
                assert b"Traceback" not in body
                assert kind != b"E" or state_of(body) != "XX000"
    with RawClient(asked.gateway.port) as client:
        client.start()


def test_the_client_that_leaves_ends_its_statement(asked: Asked) -> None:
    endless = "SELECT count(*) FROM " + ", ".join(f"log_entries {letter}" for letter in "abcdefghijkl")
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text(endless))
    # one that is left running would hold a place of the few that the engine has
    for _ in range(3):
        assert_alive(asked)


def ask_for_ever(connection: psycopg.Connection[Any]) -> None:
    """Its process in the catalogue notices a little later that it is lost."""
    while True:
        connection.execute("SELECT 1")


def test_the_catalogue_comes_back(asked: Asked) -> None:
    home = Path(asked.gateway.server._shadow.socket_path).parent
    postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
    with psycopg.connect(asked.gateway.dsn(), autocommit=True) as before:
        os.kill(postmaster, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            ask_for_ever(before)
    assert_alive(asked)
    assert not home.exists()
    with psycopg.connect(asked.gateway.dsn()) as after:
        assert after.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'log_entries'").fetchone() == (1,)


def test_no_row_comes_from_an_empty_table(asked: Asked) -> None:
    """Whatever way a view is named, its rows are those of the lake, or there is an error."""
    own = ask(asked.gateway.engine, "SELECT count(*) FROM log_entries").column(0)[0].as_py()
    ways = [
        "SELECT count(*) FROM log_entries",
        'SELECT count(*) FROM "log_entries"',
        "SELECT count(*) FROM LOG_Entries",
        'SELECT count(*) FROM public."log_entries"',
        "SELECT count(*) FROM ONLY log_entries",
        "TABLE log_entries",
        "WITH l AS (SELECT * FROM log_entries) SELECT count(*) FROM l",
        "SELECT count(*) FROM pg_class, log_entries",
        "SELECT pg_catalog.count(*) FROM log_entries",
        "SELECT (SELECT count(*) FROM log_entries)",
        "SELECT /* pg_class */ count(*) FROM -- x\n log_entries",
        "SELECT count(*) -- all\rFROM log_entries",
        "SELECT E'a'\n'\\'', count(*) FROM log_entries WHERE msg <> 'x'",
        "SELECT E'a' -- b\r'\\'', count(*) FROM log_entries WHERE msg <> 'x'",
        "SELECT count(*), $\u00d7$ ' $\u00d7$ FROM log_entries WHERE msg <> '-'",
        "SELECT count(*) AS \u00d7$a$, '$a$, ' FROM log_entries WHERE msg <> '$a$'",
        "SELECT count(*) AS \u00a0$a$, '$a$, ' FROM log_entries WHERE msg <> '$a$'",
        "SET standard_conforming_strings TO off; SELECT '\\'', count(*) FROM log_entries WHERE msg <> 'x'",
        'SELECT count(*) FROM U&"log\\005fentries"',
        "SELECT query_to_xml('SELECT count(*) FROM log_entries', true, true, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(msg) FROM log_entries')",
        "SELECT table_to_xml('log_entries', true, true, '')",
        "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM log_entries",
    ]
    for way in ways:
        with (
            psycopg.connect(asked.gateway.dsn(), autocommit=True) as connection,
            contextlib.suppress(psycopg.DatabaseError),
        ):
            cursor = connection.execute(way)
            if way.startswith("DECLARE"):
                cursor = connection.execute("FETCH ALL FROM c")
            rows = cursor.fetchall()
            assert own in rows[0] or len(rows) == own, way


def test_the_catalogue_that_does_not_come_back_is_tried_again(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = asked.gateway.server._shadow
    postmaster = int((Path(shadow.socket_path).parent / "data" / "postmaster.pid").read_text().split()[0])

    def fails() -> None:
        raise ShadowError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(shadow, "_start_server", fails)
        os.kill(postmaster, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError, match="the catalogue is not available"):
                psycopg.connect(asked.gateway.dsn())
    assert_alive(asked)
