"""Certificates of servers: those that can't be used, and those that are replaced while a server runs."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
from pyarrow import flight
from serve.conftest import StartApi, StartServer, wait_until
from servers.authority import Authority

from micromegas.config import FlightSettings
from micromegas.serve import tls
from micromegas.serve.tls import Certificate


def test_a_key_that_is_encrypted_is_refused_without_asking_at_the_terminal(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    from cryptography.hazmat.primitives import serialization

    encrypted = tmp_path / "key.pem"
    encrypted.write_bytes(
        authority.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    settings = FlightSettings(tls_certificate=Path(authority.file), tls_key=encrypted)
    with pytest.raises(OSError, match=r"ca\.pem or its key can't be used: it is encrypted"):
        Certificate.of(settings)


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificate and key in one file, which is looked at all the time."""
    monkeypatch.setattr(tls, "LOOK_S", 0.02)
    return Authority(tmp_path).issue("127.0.0.1")


def shown(port: int, name: str | None) -> bytes:
    """The certificate that a client sees, who asks for a name, or for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_new_certificate_is_shown_over_http(start_api: StartApi, pem: Path, name: str | None) -> None:
    api = start_api(tls_certificate=pem, tls_key=pem)
    trusting = ssl.create_default_context(cafile=str(pem.parent / "ca.pem"))
    with closing(http.client.HTTPSConnection("127.0.0.1", api.port, context=trusting, timeout=60)) as client:
        client.connect()
        for _ in range(2):
            before = shown(api.port, name)
            pem.write_bytes(Authority(pem.parent).issue("127.0.0.1").read_bytes())
            wait_until(lambda before=before: shown(api.port, name) != before)
        # who came before goes on
        client.request("GET", "/health")
        assert client.getresponse().status == 200


def test_a_new_certificate_is_shown_over_flight_sql(start_server: StartServer, pem: Path) -> None:
    server = start_server(tls_certificate=pem, tls_key=pem)
    port, uri = server.server.port, f"grpc+tls://127.0.0.1:{server.server.port}"
    roots = (pem.parent / "ca.pem").read_bytes()
    before, good = shown(port, "localhost"), pem.read_bytes()
    with flight.connect(uri, tls_root_certs=roots) as client:
        assert list(client.list_actions())
        replace(pem, Authority(pem.parent).issue("127.0.0.1").read_bytes())
        wait_until(lambda: shown(port, "localhost") != before)
        # who came before goes on
        assert list(client.list_actions())
    replace(pem, good)
    wait_until(lambda: shown(port, "localhost") == before)


def test_files_on_their_way_leave_the_certificate_as_it_was(
    start_api: StartApi, pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = start_api(tls_certificate=pem, tls_key=pem)
    good, before = pem.read_bytes(), shown(api.port, None)
    without_key = good.partition(b"-----BEGIN PRIVATE")[0]
    for broken, reason in (
        (b"", "PEM lib"),
        (without_key, "PEM lib"),
        (good[:-100], "bad end"),
        (None, "No such file"),
    ):
        caplog.clear()
        if broken is None:
            pem.unlink()
        else:
            replace(pem, broken)
        wait_until(lambda reason=reason: reason in caplog.text)
        assert shown(api.port, None) == before
        # once
        assert caplog.text.count("stays in use") == 1
        assert str(pem.parent) not in caplog.text
    replace(pem, Authority(pem.parent).issue("localhost").read_bytes())
    wait_until(lambda: shown(api.port, None) != before)


def replace(file: Path, content: bytes) -> None:
    """At once."""
    beside = file.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(file)


def test_a_server_that_stops_waits_for_no_handshake(start_api: StartApi, pem: Path) -> None:
    api = start_api(tls_certificate=pem, tls_key=pem, header_timeout_s=3600.0)
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as silent:
        # as much of it as shows that the server has taken the connection
        with socket.create_connection(("127.0.0.1", api.port), timeout=60) as wrong:
            wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wrong.recv(100)
        api.call(asyncio.wait_for(api.server.stop(), 30))
        silent.close()
