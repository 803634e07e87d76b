"""Keys, TLS, and the number of sessions."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from e2e.posting import wait_until
from postgres_gateway.gateway import RunningGateway
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from query.traffic import MadeTraffic
from servers.authority import Authority
from servers.identity_provider import IdentityProviderServer

from micromegas.config import ApiKey, LakeSettings, OidcIssuer, OidcSettings
from micromegas.lake import Lake
from micromegas.serve import tls
from micromegas.serve.postgres.endpoint import endpoint_of
from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.scram import ScramExchange
from micromegas.serve.tls import leaf_of

# of bob two, as while one is exchanged for another
KEYS = (ApiKey("ann", "s3cret-é"), ApiKey("bob", "other"), ApiKey("bob", "another"))
ADMINISTRATION = (
    "SELECT * FROM retire_partitions('log_entries', 'global', '2000-01-01T00:00:00Z', '2000-01-02T00:00:00Z')"
)


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
        # what can be bound to is offered over TLS only
        [message(b"p", text("SCRAM-SHA-256-PLUS"), len(b"n,,n=,r=abc").to_bytes(4, "big"), b"n,,n=,r=abc")],
    ):
        with RawClient(guarded.port) as client:
            client.send(startup({"user": "ann"}))
            client.send(b"".join(attempts))
            answers = client.rest()
            assert answers[-1][0] == b"E", attempts
            assert state_of(answers[-1][1])[:2] in ("08", "28", "22"), attempts


def test_only_administrators_administer(guarded: RunningGateway) -> None:
    with psycopg.connect(guarded.dsn(user="ann", password="s3cret-é")) as connection:
        connection.execute(ADMINISTRATION).fetchall()
    with psycopg.connect(guarded.dsn(user="bob", password="other")) as connection, pytest.raises(psycopg.Error):
        connection.execute(ADMINISTRATION)


def test_tls(guarded: RunningGateway, authority: Authority) -> None:
    options = {"user": "ann", "password": "s3cret-é", "sslmode": "verify-full", "sslrootcert": authority.file}
    with psycopg.connect(guarded.dsn(host="localhost", **options)) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (1,)


def test_a_login_is_bound_to_the_certificate(guarded: RunningGateway) -> None:
    options = {"user": "ann", "password": "s3cret-é", "channel_binding": "require"}
    with psycopg.connect(guarded.dsn(sslmode="require", **options)) as connection:
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        psycopg.connect(guarded.dsn(sslmode="disable", **options))


@pytest.mark.parametrize(
    ("mechanism", "flag", "state"),
    [
        ("SCRAM-SHA-256-PLUS", "n", "08P01"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique", "08P01"),
        # as if somebody between client and server had taken the better mechanism from the list
        ("SCRAM-SHA-256", "y", "28000"),
        ("SCRAM-SHA-256", "p=tls-server-end-point", "08P01"),
    ],
)
def test_nobody_talks_a_login_out_of_its_binding(
    guarded: RunningGateway, mechanism: str, flag: str, state: str
) -> None:
    with pytest.raises(PostgresError) as refused:
        exchange(guarded, b"an endpoint").first(mechanism, f"{flag},,n=,r=abc")
    assert refused.value.state == state


def test_a_proof_for_another_certificate_is_none(guarded: RunningGateway) -> None:
    for endpoint, state in ((b"an endpoint", "28P01"), (b"another", "08P01")):
        begun = exchange(guarded, b"an endpoint")
        nonce = begun.first("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc").split(",")[0]
        bound = base64.b64encode(b"p=tls-server-end-point,," + endpoint).decode()
        with pytest.raises(PostgresError) as refused:
            begun.final(f"c={bound},{nonce},p={base64.b64encode(bytes(32)).decode()}")
        assert refused.value.state == state


def exchange(gateway: RunningGateway, endpoint: bytes) -> ScramExchange:
    return ScramExchange(gateway.server._logins.keys, "ann", endpoint)


@pytest.mark.parametrize(("algorithm", "size"), [("SHA256", 32), ("SHA384", 48), ("SHA512", 64), (None, None)])
def test_an_endpoint_is_the_digest_of_the_certificate(
    authority: Authority, algorithm: str | None, size: int | None
) -> None:
    """As another reader of certificates tells it; one that is signed without a digest gives none."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key = ed25519.Ed25519PrivateKey.generate() if algorithm is None else ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(authority.name)
        .issuer_name(authority.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None if algorithm is None else getattr(hashes, algorithm)())
    )
    others = Path(authority.file).read_bytes()
    told = endpoint_of(leaf_of(b"a key\n" + made.public_bytes(serialization.Encoding.PEM) + others))
    assert (told is None) == (size is None)
    if told is not None and made.signature_hash_algorithm is not None:
        assert told == made.fingerprint(made.signature_hash_algorithm)
        assert len(told) == size
    assert endpoint_of(leaf_of(b"no certificate")) is None
    assert endpoint_of(b"\x30\x82\x01") is None


def test_a_new_certificate_is_what_logins_are_bound_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.02)
    authority = Authority(tmp_path)
    pem = authority.issue("localhost")
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path / "lake")) as lake,
        RunningGateway(lake, api_keys=(ApiKey("ann", "k"),), tls_certificate=pem, tls_key=pem) as gateway,
    ):
        address = gateway.dsn(user="ann", password="k", sslmode="require", channel_binding="require")
        with psycopg.connect(address) as before:
            pem.write_bytes(authority.issue("localhost").read_bytes())
            certificate = gateway.server._certificate
            assert certificate is not None
            wait_until(lambda: certificate.pair.chain == pem.read_bytes(), "the new one is in use")
            with psycopg.connect(address) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert before.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module")
def open_to_persons(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, module_provider: IdentityProviderServer
) -> Iterator[RunningGateway]:
    pem = authority.issue("localhost")
    settings = {
        "oidc": OidcSettings((OidcIssuer(module_provider.issuer, module_provider.client_id),)),
        "api_keys": (ApiKey("robot", "k"),),
        "admins": frozenset({"ann@example.com"}),
        "tls_certificate": pem,
        "tls_key": pem,
    }
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as lake,
        RunningGateway(lake, **settings) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("user", ["ann@example.com", "u-1"])
def test_persons_log_in_by_their_tokens(
    open_to_persons: RunningGateway, module_provider: IdentityProviderServer, authority: Authority, user: str
) -> None:
    trusted = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": authority.file}
    token = module_provider.id_token()
    with psycopg.connect(open_to_persons.dsn(user=user, password=token, **trusted)) as connection:
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (0,)
        connection.execute(ADMINISTRATION).fetchall()
    other = module_provider.id_token(sub="u-2", email="eve@example.com")
    address = open_to_persons.dsn(user="u-2", password=other, **trusted)
    with psycopg.connect(address) as connection, pytest.raises(psycopg.Error):
        connection.execute(ADMINISTRATION)


def test_keys_open_beside_tokens(open_to_persons: RunningGateway) -> None:
    for mode in ("disable", "require"):
        with psycopg.connect(open_to_persons.dsn(user="robot", password="k", sslmode=mode)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_tokens_that_let_nobody_in(open_to_persons: RunningGateway, module_provider: IdentityProviderServer) -> None:
    good = module_provider.id_token()
    for user, password, mode, told in (
        ("ann@example.com", good, "disable", "needs TLS"),
        ("eve@example.com", good, "require", "not of the user"),
        ("robot", good, "require", "password authentication failed"),
        ("ann@example.com", "k", "require", "no token"),
        ("ann@example.com", module_provider.id_token(exp=1000), "require", "it has ended"),
        ("ann@example.com", module_provider.id_token(aud="another"), "require", "another audience"),
        ("ann@example.com", good[:-4], "require", "signature"),
        ("ann@example.com", "x" * 20_000, "require", "request for authentication"),
    ):
        with pytest.raises(psycopg.OperationalError, match=told) as refused:
            psycopg.connect(open_to_persons.dsn(user=user, password=password, sslmode=mode))
        assert good not in str(refused.value)


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


def test_logins_at_once_take_no_more_places_than_there_are(tmp_path: Path) -> None:
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path)) as lake,
        RunningGateway(lake, max_sessions=2) as gateway,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(RawClient(gateway.port)) for _ in range(12)]
        for client in clients:
            client.send(startup({"user": "anybody", "database": "micromegas"}))
        ends = []
        for client in clients:
            answer = client.answer()
            while answer is not None and answer[0] not in (b"Z", b"E"):
                answer = client.answer()
            ends.append(answer)
        assert [end for end in ends if end is not None and end[0] == b"Z"] == [(b"Z", b"I")] * 2
        assert [state_of(end[1]) for end in ends if end is not None and end[0] == b"E"] == ["53300"] * 10
