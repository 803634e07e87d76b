"""Keys, TLS, and the number of sessions."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import psycopg
import pytest
from postgres_gateway.gateway import RunningGateway
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from query.traffic import MadeTraffic
from servers.authority import Authority

from micromegas.config import ApiKey, LakeSettings
from micromegas.lake import Lake

# of bob two, as while one is exchanged for another
KEYS = (ApiKey("ann", "s3cret-é"), ApiKey("bob", "other"), ApiKey("bob", "another"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningGateway]:
    """A gateway with keys, TLS, one administrator, and room for three."""
    # certificate and key in one file
    pem = authority.issue("localhost")
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as lake,
        RunningGateway(
            lake,
            api_keys=KEYS,
            admins=frozenset(["ann"]),
            tls_certificate=pem,
            tls_key=pem,
            max_sessions=3,
        ) as gateway,
    ):
        MadeTraffic(lake).logs("hello")
        yield gateway


def test_the_name_of_a_key_and_the_key_open(guarded: RunningGateway) -> None:
    for key in KEYS:
        with psycopg.connect(guarded.dsn(user=key.name, password=key.key)) as connection:
            assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (1,)


@pytest.mark.parametrize(("user", "password"), [("ann", "other"), ("nobody", "s3cret-é"), ("ann", ""), ("", "other")])
def test_nothing_else_does(guarded: RunningGateway, user: str, password: str) -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(guarded.dsn(user=user or "x", password=password))
    text_of_it = str(refused.value)
    assert "password authentication failed" in text_of_it or "no password supplied" in text_of_it
    assert "other" not in text_of_it
    assert "s3cret" not in text_of_it


def test_logins_that_are_none(guarded: RunningGateway) -> None:
    first = b"n,,n=,r=abc"
    initial = text("SCRAM-SHA-256") + len(first).to_bytes(4, "big") + first
    for attempts in (
        [message(b"p", text("PLAIN"), b"\0\0\0\0")],
        [message(b"Q", text("SELECT 1"))],
        [message(b"p", b"")],
        [message(b"p", text("SCRAM-SHA-256"), b"\xff\xff\xff\xff")],
        [message(b"p", initial), message(b"p", b"c=biws,r=abc,p=AAAA")],
        [message(b"p", initial), message(b"p", b"\xff\xfe")],
        [message(b"p", initial), message(b"p", b"")],
        [message(b"p", text("SCRAM-SHA-256"), len(b"p=x,,n=,r=a").to_bytes(4, "big"), b"p=x,,n=,r=a")],
    ):
        with RawClient(guarded.port) as client:
            client.send(startup({"user": "ann"}))
            client.send(b"".join(attempts))
            answers = client.rest()
            assert answers[-1][0] == b"E", attempts
            assert state_of(answers[-1][1])[:2] in ("08", "28", "22"), attempts


def test_only_administrators_administer(guarded: RunningGateway) -> None:
    order = "SELECT * FROM retire_partitions('log_entries', 'global', '2000-01-01T00:00:00Z', '2000-01-02T00:00:00Z')"
    with psycopg.connect(guarded.dsn(user="ann", password="s3cret-é")) as connection:
        connection.execute(order).fetchall()
    with psycopg.connect(guarded.dsn(user="bob", password="other")) as connection, pytest.raises(psycopg.Error):
        connection.execute(order)


def test_tls(guarded: RunningGateway, authority: Authority) -> None:
    options = {"user": "ann", "password": "s3cret-é", "sslmode": "verify-full", "sslrootcert": authority.file}
    with psycopg.connect(guarded.dsn(host="localhost", **options)) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (1,)


def test_bytes_before_the_answer_to_tls_do_not_count(guarded: RunningGateway) -> None:
    with RawClient(guarded.port) as client:
        client.send(b"\0\0\0\x08\x04\xd2\x16\x2f" + startup({"user": "ann"}))
        assert client.socket.recv(1) == b"S"
        # the server closes; it never reads what came in clear
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(client.socket)


def test_more_sessions_than_there_is_room_for(guarded: RunningGateway) -> None:
    options = {"user": "ann", "password": "s3cret-é"}
    opened = [psycopg.connect(guarded.dsn(**options)) for _ in range(3)]
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        psycopg.connect(guarded.dsn(**options))
    opened.pop().close()
    for connection in opened:
        connection.close()
    with psycopg.connect(guarded.dsn(**options)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
