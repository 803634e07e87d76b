"""TLS: whom the recorder trusts, whom it shows itself to, and what it says of a handshake that fails."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading

import pytest
from record.upload_programs import FAIL, RECORD
from servers.authority import Authority


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("way", ["MICROMEGAS_CA_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_https(run, server, authority, version, way):
    url = server.encrypt(authority.issue("127.0.0.1"), maximum_version=getattr(ssl.TLSVersion, version))
    trusted = str(authority.folder) if way == "SSL_CERT_DIR" else authority.file
    done = run(RECORD, env={"MICROMEGAS_TELEMETRY_URL": url, way: trusted})
    assert json.loads(done.stdout) == [True, None]
    captured = server.captured
    assert captured.messages() == [f"x {i}" for i in range(20)]
    assert captured.measures("m") == [1]


def test_https_by_name_and_with_a_block_of_megabytes(run, server, authority):
    url = server.encrypt(authority.issue("localhost")).replace("127.0.0.1", "localhost")
    done = run(
        """
        import random
        mm.init(flush_period=30, ca_file=CA)
        texts = [random.randbytes(30_000).hex() for _ in range(40)]
        for text in texts: mm.log.info("%s", text)
        print(mm.flush(20), mm.status()["lost_events"])
        print(sum(map(len, texts)))
        """.replace("CA", repr(authority.file)),
        env={"MICROMEGAS_TELEMETRY_URL": url},
    )
    arrived, total = done.stdout.splitlines()
    assert arrived == "True 0"
    assert sum(map(len, server.captured.messages())) == int(total)


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (("127.0.0.1", (-1, 1)), (False, "is not trusted: nobody known issued it (name the authority with ca_file=")),
        (("other.example", (-1, 1)), (True, "is not one of 127.0.0.1 but of another name")),
        (("127.0.0.1", (-3, -2)), (True, "has expired")),
        (("127.0.0.1", (2, 3)), (True, "is not valid yet")),
    ],
)
def test_a_certificate_that_is_not_to_be_trusted(run, server, authority, certificate, expected):
    """Nothing is sent; the error says what is wrong. It is tried again, as the server may be mended."""
    name, days = certificate
    trusted, told = expected
    url = server.encrypt(authority.issue(name, days=days))
    trusted_file = authority.file if trusted else Authority(authority.folder, "other").file
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": trusted_file})
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert told in error
    assert server.captured.requests == []


def test_https_to_a_port_that_speaks_http_and_the_reverse(run, server, authority):
    trust = {"MICROMEGAS_CA_FILE": authority.file}
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": server.url.replace("http:", "https:")} | trust)
    assert "does not speak TLS (is it a port for http://?)" in json.loads(done.stdout)[1]
    plain = server.url
    server.encrypt(authority.issue("127.0.0.1"))
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": plain})
    assert json.loads(done.stdout)[0] is False
    assert "insert_process: " in json.loads(done.stdout)[1]


def test_client_certificates(run, server, authority):
    url = server.encrypt(authority.issue("127.0.0.1"), verify_mode=ssl.CERT_REQUIRED)
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    # What it can't send must not come with the next.
    done = run(FAIL, env=environment | {"MICROMEGAS_SPOOL": "off"})
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert "CertificateRequired" in error
    done = run(RECORD, env=environment | {"MICROMEGAS_CLIENT_CERTIFICATE": str(authority.issue("client.example"))})
    assert json.loads(done.stdout) == [True, None]
    assert server.captured.measures("m") == [1]


def test_what_a_server_says_before_it_hangs_up_in_the_middle_of_a_request(run, authority):
    """More is under way by then than fits anywhere, so that the rest of the request can't be written."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("127.0.0.1"))

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or the reset may overtake the answer
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                received = connection.recv(65536)
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                if b"insert_block" in received:
                    connection.sendall(b"HTTP/1.1 413 too long\r\ncontent-length: 0\r\n\r\n")
                else:
                    head, _, body = received.partition(b"\r\n\r\n")
                    length = int(re.search(rb"content-length: (\d+)", head)[1])
                    while len(body) < length:
                        body += connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            done = run(
                """
                import random
                mm.init(flush_period=30)
                for _ in range(120): mm.log.info("%s", random.randbytes(30_000).hex())
                mm.flush(20)
                print(mm.status()["last_error"])
                """,
                env={
                    "MICROMEGAS_TELEMETRY_URL": f"https://127.0.0.1:{listener.getsockname()[1]}",
                    "MICROMEGAS_CA_FILE": authority.file,
                    "MICROMEGAS_SPOOL": "off",
                },
            )
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert done.stdout == "insert_block: status 413: \n"


def test_a_forked_child_reports_through_tls_of_its_own(run, server, authority):
    url = server.encrypt(authority.issue("127.0.0.1"))
    done = run(
        """
        import os
        mm.init(flush_period=0.01)
        mm.log.info("parent")
        children = []
        for i in range(20):
            pid = os.fork()
            if pid == 0:
                mm.log.info("child %d", i)
                os._exit(0 if mm.flush(20) else 1)
            children.append(pid)
        print({os.waitpid(pid, 0)[1] for pid in children})
        assert mm.flush(20)
        """,
        env={"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file, "MICROMEGAS_SPOOL": "off"},
    )
    assert done.stdout == "{0}\n"
    assert sorted(server.captured.messages()) == sorted([*(f"child {i}" for i in range(20)), "parent"])
