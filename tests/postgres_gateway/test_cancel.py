"""A wish to cancel that comes at a bad moment, and what goes wrong where an answer ends: exactly one answer each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, cancel, message, state_of, text

from micromegas.serve.postgres.messages import ready_for_query
from micromegas.serve.postgres.relay import Relay
from micromegas.serve.postgres.server import _Output

SYNC = message(b"S")
ONE = (
    message(b"P", text(""), text("SELECT 1"), b"\0\0")
    + message(b"B", text(""), text(""), b"\0\0\0\0\0\0")
    + message(b"E", text(""), b"\0\0\0\0")
)


class Gate:
    """Holds what comes, until it is opened."""

    def __init__(self) -> None:
        self.armed = False
        self.reached, self.opened = threading.Event(), threading.Event()

    async def passed(self) -> None:
        self.reached.set()
        while not self.opened.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


@pytest.fixture
def client(asked: Asked) -> Iterator[RawClient]:
    with RawClient(asked.gateway.port) as opened:
        yield opened


def assert_answers_once(client: RawClient) -> None:
    for _ in range(2):
        client.say(b"Q", text("SELECT 1"))
        assert [kind for kind, _ in client.until(b"Z")] == [b"T", b"D", b"C", b"Z"]


def test_while_a_run_of_messages_ends(
    asked: Asked, client: RawClient, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = client.start()
    sync = Relay.sync

    async def held(relay: Relay) -> None:
        await gate.passed()
        await sync(relay)

    monkeypatch.setattr(Relay, "sync", held)
    client.send(ONE + SYNC)
    assert gate.reached.wait(20)
    cancel(asked.gateway.port, key)
    gate.opened.set()
    assert [kind for kind, _ in client.until(b"Z")] == [b"1", b"2", b"D", b"C", b"Z"]
    assert_answers_once(client)


def hold_writes(gate: Gate, monkeypatch: pytest.MonkeyPatch, held: Callable[[bytes], bool]) -> None:
    """For sessions that begin after it: what fits is held once it is written."""
    write = _Output.write

    async def patched(output: Any, content: bytes) -> None:
        await write(output, content)
        if gate.armed and held(content):
            await gate.passed()

    monkeypatch.setattr(_Output, "write", patched)


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT count(*) FROM log_entries", "SELECT nosuch FROM log_entries"])
def test_while_an_end_is_told(
    asked: Asked, client: RawClient, gate: Gate, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    hold_writes(gate, monkeypatch, lambda content: content.endswith(ready_for_query(b"I")))
    key = client.start()
    gate.armed = True
    client.say(b"Q", text(sql))
    assert gate.reached.wait(20)
    cancel(asked.gateway.port, key)
    gate.opened.set()
    client.until(b"Z")
    assert_answers_once(client)


def test_while_an_error_is_told(asked: Asked, client: RawClient, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_writes(gate, monkeypatch, lambda content: content[:1] == b"E")
    key = client.start()
    gate.armed = True
    client.send(message(b"P", text(""), text("SELECT nosuch FROM log_entries"), b"\0\0"))
    assert gate.reached.wait(20)
    cancel(asked.gateway.port, key)
    gate.opened.set()
    client.send(SYNC)
    assert [kind for kind, _ in client.until(b"Z")] == [b"E", b"Z"]
    assert_answers_once(client)


def test_a_catalogue_that_is_lost_at_a_login_is_one_that_does_not_answer(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def connect() -> None:
        path = str(tmp_path / "socket")
        async with await asyncio.start_unix_server(hang_up, path):
            with pytest.raises(OSError, match="lost"):
                await Relay.connect(path, {})

    asyncio.run(connect())


def test_a_run_that_can_not_be_ended_is_an_error_and_an_end(client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.start()

    async def failing(_: Relay) -> None:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patched:
        patched.setattr(Relay, "sync", failing)
        client.send(SYNC)
        answers = client.until(b"Z")
    assert [kind for kind, _ in answers] == [b"E", b"Z"]
    assert state_of(answers[0][1]) == "XX000"
    assert_answers_once(client)
