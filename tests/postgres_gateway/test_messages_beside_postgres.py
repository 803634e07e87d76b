"""Messages in any order, said to the gateway and to a PostgreSQL with the same rows: both answer the same."""

from __future__ import annotations

import random
import struct

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from psycopg.conninfo import conninfo_to_dict

SYNC = message(b"S")
SQL = [
    "SELECT 1",
    "SELECT level FROM log_entries ORDER BY level",
    "SELECT n FROM generate_series(1, 5) n",
    "SELECT count(*) FROM log_entries",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "SET search_path = public",
    "SHOW search_path",
    "",
    "SELECT nosuch FROM log_entries",
    "SELECT nosuch",
    "DECLARE c CURSOR FOR SELECT level FROM log_entries ORDER BY level",
    "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 5) n",
    "FETCH 2 FROM c",
    "MOVE 1 FROM c",
    "CLOSE c",
    "SELECT $1::int FROM log_entries WHERE level = 3 LIMIT 1",
    "SELECT $1::int",
    "SELECT 1; SELECT 2",
    "PREPARE s AS SELECT 1",
    "EXECUTE s",
    "DEALLOCATE s",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "COPY (SELECT 1) TO STDOUT",
    "COPY (SELECT level FROM log_entries ORDER BY 1 LIMIT 1) TO STDOUT",
]
STATEMENTS, PORTALS = ["", "s", "p"], ["", "p", "c"]

said = st.sampled_from(SQL).map(text)
statements, portals = (st.sampled_from(names).map(text) for names in (STATEMENTS, PORTALS))
named = st.one_of(statements.map(lambda name: b"S" + name), portals.map(lambda name: b"P" + name))
values = st.sampled_from([b"\0\0\0\0", b"\0\0\0\0", b"\0\0\0\x01\0\0\0\x013"])
forms = st.sampled_from([b"\0\0", b"\0\x01\0\x01", b"\0\x01\0\0"])
messages = st.one_of(
    st.builds(lambda name, sql: message(b"P", name, sql, b"\0\0"), statements, said),
    st.builds(lambda portal, name, *rest: message(b"B", portal, name, *rest), portals, statements, values, forms),
    named.map(lambda each: message(b"D", each)),
    st.builds(lambda name, rows: message(b"E", name, struct.pack("!i", rows)), portals, st.sampled_from([0, 2])),
    named.map(lambda each: message(b"C", each)),
    said.map(lambda sql: message(b"Q", sql)),
    st.sampled_from([SYNC, message(b"H")]),
)


def answered(port: int, database: str, content: bytes) -> list[tuple[bytes, bytes | str]]:
    """What is answered, without the texts of errors; notices and settings are told apart from the rest."""
    with RawClient(port) as client:
        client.send(startup({"user": "micromegas", "database": database}))
        client.until(b"Z")
        # a transaction that failed would refuse the question for the end
        client.send(content + SYNC + message(b"Q", text("ROLLBACK")) + message(b"Q", text("SELECT 'the end'")))
        answers: list[tuple[bytes, bytes | str]] = []
        while (answer := client.answer()) is not None and b"the end" not in answer[1]:
            kind, body = answer
            if kind not in b"NS":
                answers.append((kind, state_of(body) if kind == b"E" else body if kind in b"ZCDdn" else b""))
        return answers


@settings(max_examples=40, deadline=None)
@example([message(b"P", text(""), text("FETCH 2 FROM c"), b"\0\0"), message(b"D", b"S", text(""))])
@example([message(b"P", text(""), text("EXECUTE s"), b"\0\0"), message(b"B", text(""), text(""), bytes(6))])
@example([message(b"P", text("s"), text(sql), b"\0\0") for sql in ("SELECT 1", "SELECT nosuch FROM log_entries")])
@example([message(b"P", text("s"), text("SELECT 1"), b"\0\0")] * 2)
@example([message(b"P", text("s"), text("EXECUTE s"), b"\0\0"), message(b"B", text(""), text("s"), bytes(6))])
@example([message(b"Q", text(SQL[15])), message(b"E", text("c"), b"\0\0\0\x02")])
@example([message(b"Q", text("BEGIN")), message(b"Q", text(SQL[14])), message(b"E", text("c"), bytes(4))])
@example([message(b"Q", text("BEGIN")), message(b"B", text(""), text(""), bytes(6))])
@given(said_in_turn=st.lists(messages, min_size=1, max_size=9))
def test_messages_are_answered_as_postgresql_answers_them(
    asked: Asked, same_rows: str, said_in_turn: list[bytes]
) -> None:
    theirs = conninfo_to_dict(same_rows)
    content = b"".join(said_in_turn)
    ours = answered(asked.gateway.port, "micromegas", content)
    assert ours == answered(int(theirs["port"] or 0), str(theirs["dbname"]), content)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_cut_or_turned_around_harms_nobody(asked: Asked, seed: int) -> None:
    """Messages that are almost right: bytes changed, left out, said twice."""
    chance = random.Random(seed)
    for _ in range(40):
        parts = [message(b"P", text("s"), text(chance.choice(SQL)), b"\0\0")]
        parts += [message(b"B", text("p"), text("s"), bytes(6)), message(b"D", b"P", text("p"))]
        parts += [message(b"E", text("p"), b"\0\0\0\x02"), message(b"Q", text(chance.choice(SQL)))]
        content = bytearray(b"".join(chance.choices(parts, k=6)))
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(content))
            content[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        with RawClient(asked.gateway.port) as client:
            client.start()
            try:
                client.send(bytes(content))
                client.socket.shutdown(1)
                answers = client.rest()
            except ConnectionError:
                continue
            assert all(kind != b"E" or state_of(body) != "XX000" for kind, body in answers)
            assert not any(b"Traceback" in body for _, body in answers)
    with psycopg.connect(asked.gateway.dsn()) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM log_entries").fetchone() == (True,)
