"""Connections of which only one side is left, or which never get as far as a question: nobody else waits for them."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from postgres_gateway.gateway import RunningGateway
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from query.traffic import MadeTraffic
from servers.authority import Authority

from micromegas.config import ApiKey, LakeSettings
from micromegas.lake import Lake
from micromegas.serve.postgres.dialect import DATABASE
from micromegas.serve.postgres.shadow import PORT, READER

Opened = TypeVar("Opened")
KEY = ApiKey("ann", "s3cret")
ROOM = 2
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
ENDLESS = "SELECT count(*) FROM " + ", ".join(f"log_entries {letter}" for letter in "abcdefghijkl")
WIDE = "SELECT repeat(msg, 10000) FROM log_entries"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as opened:
        MadeTraffic(opened).logs(*["x" * 100] * 100)
        yield opened


@pytest.fixture(scope="module")
def guarded(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with keys that waits for no login long."""
    pem = Authority(tmp_path_factory.mktemp("authority")).issue("localhost")
    limits = {"max_sessions": ROOM, "login_timeout_s": 1.0}
    with RunningGateway(lake, api_keys=(KEY,), tls_certificate=pem, tls_key=pem, **limits) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def hurried(lake: Lake) -> Iterator[RunningGateway]:
    """A gateway that waits for no reader long."""
    with RunningGateway(lake, max_sessions=ROOM, write_timeout_s=0.5) as gateway:
        yield gateway


def when_there_is_room(opening: Callable[[], Opened]) -> Opened:
    """As soon as the sessions before it are found to have ended."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return opening()
        except (psycopg.OperationalError, AssertionError) as error:
            if "too many clients" not in str(error) or time.monotonic() > deadline:
                raise


def assert_has_room(gateway: RunningGateway) -> None:
    """For as many sessions as ever."""
    address = gateway.dsn(user=KEY.name, password=KEY.key)
    opened = [when_there_is_room(lambda: psycopg.connect(address, autocommit=True)) for _ in range(ROOM)]
    for connection in opened:
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (100,)
        connection.close()


def started(gateway: RunningGateway) -> RawClient:
    """A client past its login."""
    client = RawClient(gateway.port)
    try:
        client.start()
    except AssertionError:
        client.__exit__()
        raise
    return client


def test_who_never_logs_in_takes_nobodys_place_and_is_left(guarded: RunningGateway) -> None:
    login = startup({"user": KEY.name})
    begun = [b"", b"\0\0", SSL_REQUEST, SSL_REQUEST + b"\x16\x03\x01", login[:-3], login, login + b"p\0\0"]
    silent = [RawClient(guarded.port) for _ in begun * 10]
    for client, said in zip(silent, begun * 10, strict=True):
        client.send(said)
    assert_has_room(guarded)
    for client in silent:
        while client.socket.recv(4096):
            pass
        client.__exit__()


def test_who_begins_to_log_in_and_says_no_more_is_told_why_it_is_left(guarded: RunningGateway) -> None:
    with RawClient(guarded.port) as client:
        client.send(startup({"user": KEY.name}))
        (asked, _), (kind, error) = client.rest()
        assert (asked, kind, state_of(error)) == (b"R", b"E", "57014")
        assert b"FATAL" in error


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"Q\0",
        b"Q\0\0\x10\0SELECT",
        b"P\x10\0\0\0too much of what is",
        message(b"Q", text("SELECT pg_sleep(1000)")),
        message(b"Q", text(ENDLESS)),
        message(b"Q", text(WIDE)),
        message(b"Q", text(f"COPY ({WIDE}) TO STDOUT")),
        message(b"Q", text("BEGIN")) + message(b"P", text("a"), text(WIDE), b"\0\0"),
    ],
)
def test_who_is_gone_has_left_its_place(hurried: RunningGateway, said: bytes, is_reset: bool) -> None:
    for _ in range(ROOM):
        with when_there_is_room(lambda: started(hurried)) as client:
            client.send(said)
            if is_reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert_has_room(hurried)


@pytest.mark.parametrize(
    "sql", [WIDE, f"COPY ({WIDE}) TO STDOUT", "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)"]
)
def test_who_stops_reading_loses_its_place(hurried: RunningGateway, sql: str) -> None:
    stalled = [when_there_is_room(lambda: started(hurried)) for _ in range(ROOM)]
    for client in stalled:
        client.send(message(b"Q", text(sql)))
    assert_has_room(hurried)
    for client in stalled:
        client.__exit__()


def test_a_login_waits_for_sessions_of_the_catalogue_that_are_about_to_end(hurried: RunningGateway) -> None:
    assert_has_room(hurried)
    catalogue = str(Path(hurried.server._shadow.socket_path).parent)
    with RawClient(hurried.port) as client:
        with ExitStack() as held:

            def hold() -> None:
                while True:
                    held.enter_context(psycopg.connect(host=catalogue, port=PORT, dbname=DATABASE, user=READER))

            with pytest.raises(psycopg.OperationalError, match="slots"):
                hold()
            client.send(startup({"user": "raw"}))
            assert client.answer() == (b"R", bytes(4))
            # nothing is said as long as there is no place
            assert select.select([client.socket], [], [], 0.2)[0] == []
        client.until(b"Z")
