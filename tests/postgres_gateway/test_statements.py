"""How statements are read before anybody runs them: in time that grows as the text does, and beside other sessions."""

from __future__ import annotations

import asyncio
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, message, state_of, text
from psycopg import errors

from micromegas.serve.postgres.dialect import _Rewriting
from micromegas.serve.postgres.lake_rows import aside
from micromegas.serve.postgres.session import MAX_STATEMENT


class Looked(list[Any]):
    """A list that counts how often somebody goes through it."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return super().__iter__()


def test_members_are_found_without_a_look_at_all_others() -> None:
    rewriting = _Rewriting("SELECT " + ", ".join(["a->>'b'"] * 100), frozenset())
    looked = rewriting._edits = Looked()
    assert rewriting.text().count("property_get(a, 'b')") == 100
    assert looked.times <= 1


def test_what_has_no_end_is_not_searched_for_it_from_every_place() -> None:
    for piece in ("OPERATOR(pg_catalog.", "x = any('{1}'::"):
        rewriting = _Rewriting(piece * 100, frozenset())
        asked: list[int] = []
        at = rewriting._at

        def counted(place: int, at: Any = at, asked: list[int] = asked) -> Any:
            asked.append(place)
            return at(place)

        rewriting._at = counted  # type: ignore[method-assign]
        rewriting.text()
        assert len(asked) <= 40 * len(rewriting._tokens), piece


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
