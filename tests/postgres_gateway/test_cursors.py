"""Cursors as a client sees them: the format of their rows, and what the catalogue keeps for them."""

from __future__ import annotations

from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, text

BINARY, AS_TEXT = b"\0\1\0\1", b"\0\0"


def _described_form(answers: list[tuple[bytes, bytes]]) -> int:
    return int.from_bytes(next(body for kind, body in answers if kind == b"T")[-2:], "big")


def _value(answers: list[tuple[bytes, bytes]]) -> bytes:
    return next(body for kind, body in answers if kind == b"D")[6:]


def _fetch(client: RawClient, forms: bytes) -> list[tuple[bytes, bytes]]:
    client.say(b"P", text(""), text("FETCH 1 FROM rows"), b"\0\0")
    client.say(b"B", text(""), text(""), b"\0\0\0\0", forms)
    client.say(b"D", b"P", text(""))
    client.say(b"E", text(""), b"\0\0\0\0")
    client.say(b"S")
    return client.until(b"Z")


def test_a_bound_fetch_gives_the_format_that_it_asks_for_whatever_was_declared(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text("BEGIN; DECLARE rows BINARY CURSOR FOR SELECT 7::INT FROM log_entries"))
        client.until(b"Z")
        for forms, form, value in ((AS_TEXT, 0, b"7"), (BINARY, 1, b"\0\0\0\7"), (AS_TEXT, 0, b"7")):
            answers = _fetch(client, forms)
            assert (_described_form(answers), _value(answers)) == (form, value)
        client.say(b"Q", text("FETCH 1 FROM rows"))
        answers = client.until(b"Z")
        assert (_described_form(answers), _value(answers)) == (1, b"\0\0\0\7")


def test_a_fetch_by_text_gives_the_format_that_was_declared_whatever_was_asked_for_before(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text("BEGIN; DECLARE rows CURSOR FOR SELECT 7::INT FROM log_entries"))
        client.until(b"Z")
        assert _value(_fetch(client, BINARY)) == b"\0\0\0\7"
        client.say(b"Q", text("FETCH 1 FROM rows"))
        answers = client.until(b"Z")
        assert (_described_form(answers), _value(answers)) == (0, b"7")


def test_the_catalogue_forgets_statements_that_nothing_leads_to(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text("BEGIN"))
        client.until(b"Z")
        for _ in range(5):
            # each replaces the one before while that has a portal yet
            client.say(b"P", text(""), text("SELECT relname FROM pg_class WHERE relname = $1"), b"\0\0")
            client.say(b"B", text(""), text(""), b"\0\0", b"\0\1\0\0\0\1x", AS_TEXT)
            client.say(b"E", text(""), b"\0\0\0\0")
            client.say(b"S")
            client.until(b"Z")
        client.say(b"Q", text("COMMIT"))
        client.until(b"Z")
        for shown, end in (
            ("relname", "CLOSE rows; COMMIT"),
            ("relname", "ROLLBACK"),
            ("1 / (relpages * 0)", "ROLLBACK"),
        ):
            client.say(b"Q", text(f"BEGIN; DECLARE rows CURSOR FOR SELECT {shown} FROM pg_class"))
            client.until(b"Z")
            client.say(b"Q", text(end))
            client.until(b"Z")
        client.say(b"P", text(""), text("SELECT 1 FROM log_entries"), b"\0\0")
        client.say(b"S")
        client.until(b"Z")
        client.say(b"Q", text("SELECT count(*) FROM pg_prepared_statements"))
        assert _value(client.until(b"Z")) == b"0"
