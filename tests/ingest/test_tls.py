"""Ingestion over TLS, and its certificate replaced while it runs."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from e2e.posting import wait_until
from senders import new_id, process_body
from servers.authority import Authority
from servers.ingest import RunningIngest, running_ingest

from micromegas.config import IngestSettings
from micromegas.ingest import door
from micromegas.serve import tls
from micromegas.wire import Batch

INSERT = "/ingestion/insert_process"


class Kept:
    """Takes everything."""

    advised_lanes = 1

    def __init__(self) -> None:
        self.process_ids: set[str] = set()

    def commit(self, batch: Batch) -> None:
        self.process_ids |= {each.process_id for each in batch.processes}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def file(authority: Authority, tmp_path: Path) -> Path:
    """Certificate and key, as the server reads them."""
    path = tmp_path / "server.pem"
    path.write_bytes(authority.issue("127.0.0.1").read_bytes())
    return path


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture
def service(sink: Kept, file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningIngest]:
    monkeypatch.setattr(tls, "LOOK_S", 0.02)
    with running_ingest(sink, IngestSettings(port=0, tls_certificate=file, tls_key=file)) as running:
        yield running


def connection(service: RunningIngest, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", service.port, context=context, timeout=60)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


def shown(service: RunningIngest) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", service.port)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_over_tls(service: RunningIngest, sink: Kept, authority: Authority, version: ssl.TLSVersion) -> None:
    context = trusting(authority)
    context.maximum_version = version
    process_id = new_id()
    with closing(connection(service, context)) as sender:
        for method, path, body, status in (
            ("GET", "/health", None, 200),
            ("POST", INSERT, process_body(process_id), 200),
            ("POST", INSERT, b"nonsense", 400),
        ):
            sender.request(method, path, body)
            reply = sender.getresponse()
            assert (reply.status, len(reply.read()) > 0) == (status, status == 400)
    assert sink.process_ids == {process_id}


def test_nothing_is_said_without_it_or_to_who_does_not_trust(
    service: RunningIngest, sink: Kept, authority: Authority, tmp_path: Path
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert not plain.recv(1000).startswith(b"HTTP")
    with (
        closing(connection(service, trusting(Authority(tmp_path, "other")))) as sender,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        sender.request("POST", INSERT, process_body(new_id()))
    assert sink.process_ids == set()


@pytest.mark.parametrize("said", [b"", b"P", b"GET / HTTP/1.1\r\nhost"])
@pytest.mark.parametrize("is_secure", [False, True])
def test_who_never_asks_takes_nobodys_place(
    sink: Kept, file: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, *, is_secure: bool, said: bytes
) -> None:
    monkeypatch.setattr(door, "_HEADERS_MS", 300)
    files = {"tls_certificate": file, "tls_key": file} if is_secure else {}
    context = trusting(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with running_ingest(sink, IngestSettings(port=0, max_connections=1, **files)) as running, ExitStack() as stack:

        def connected() -> socket.socket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=30))
            if not is_secure:
                return plain
            return stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))

        silent = connected()
        silent.sendall(said)
        assert silent.recv(100) == b""
        asking = connected()
        asking.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert asking.recv(100).startswith(b"HTTP/1.1 200")


def test_a_new_certificate_is_shown_and_nothing_under_way_is_lost(
    service: RunningIngest, sink: Kept, file: Path, authority: Authority
) -> None:
    ids = [new_id(), new_id()]
    body = process_body(ids[0])
    with closing(connection(service, trusting(authority))) as sender:
        sender.putrequest("POST", INSERT)
        sender.putheader("content-length", str(len(body)))
        sender.endheaders(body[:10])
        for _ in range(2):
            before = shown(service)
            file.write_bytes(authority.issue("127.0.0.1").read_bytes())
            wait_until(lambda before=before: shown(service) != before, "the new certificate is shown")
        sender.send(body[10:])
        assert sender.getresponse().status == 200
    with closing(connection(service, trusting(authority))) as sender:
        sender.request("POST", INSERT, process_body(ids[1]))
        assert sender.getresponse().status == 200
    assert sink.process_ids == set(ids)


def test_a_new_certificate_that_ends_as_the_one_before(
    service: RunningIngest,
    file: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what vouches for it is another: who listens now can't be told by what is shown."""

    class Slow(door.Server):
        async def serve(self, *arguments, **options):
            await asyncio.sleep(0.3)
            await super().serve(*arguments, **options)

    monkeypatch.setattr(door, "Server", Slow)
    before = shown(service)
    with caplog.at_level(logging.INFO):
        file.write_bytes(file.read_bytes() + Path(authority.file).read_bytes())
        wait_until(lambda: "has been renewed" in caplog.text, "it is taken into use")
    assert shown(service) == before


def test_what_could_not_be_used_once_is_tried_again(
    service: RunningIngest,
    file: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, folder = shown(service), file.with_name("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    file.write_bytes(authority.issue("127.0.0.1").read_bytes())
    wait_until(lambda: "stays in use" in caplog.text, "it is told")
    assert "has been renewed" not in caplog.text
    folder.mkdir()
    wait_until(lambda: shown(service) != before, "the new one is shown")
    assert caplog.text.count("stays in use") == 1


def unfit(authority: Authority, kind: str) -> bytes:
    """What can't be used."""
    if kind == "another key":
        return authority.issue("127.0.0.1").read_bytes().partition(b"-----BEGIN PRIVATE")[0]
    if kind != "a curve of few":
        return kind.encode()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    # OpenSSL takes it, the HTTP server does not
    key = ec.generate_private_key(ec.SECP256K1())
    certificate = authority._build(authority.name, key.public_key())
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("kind", ["", "nonsense", "another key", "a curve of few"])
def test_what_can_not_be_used_leaves_the_one_before(
    service: RunningIngest, file: Path, authority: Authority, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    before = shown(service)
    with caplog.at_level(logging.ERROR):
        file.write_bytes(unfit(authority, kind))
        wait_until(lambda: "stays in use" in caplog.text, "it is told")
    assert shown(service) == before
    assert str(file.parent) not in caplog.text
    file.write_bytes(authority.issue("127.0.0.1").read_bytes())
    wait_until(lambda: shown(service) != before, "the next one is shown")


@pytest.mark.parametrize("kind", ["", "a curve of few"])
def test_what_can_not_be_used_is_told_at_the_start(sink: Kept, file: Path, authority: Authority, kind: str) -> None:
    file.write_bytes(unfit(authority, kind))
    settings = IngestSettings(port=0, tls_certificate=file, tls_key=file)
    with pytest.raises(OSError, match=r"certificate .*or its key"), running_ingest(sink, settings):
        pass


def test_half_of_it_is_none(file: Path) -> None:
    with pytest.raises(ValueError, match="both a certificate and its key"):
        IngestSettings(tls_certificate=file)
