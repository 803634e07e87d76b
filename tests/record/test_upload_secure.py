"""TLS, proxies and authentication, against real servers: certificates of an authority made here, a proxy of our own."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import select
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SECRET = "s3cr3t-that-must-not-show"


class Authority:
    """A throw-away authority, its certificate in `ca.pem`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        pytest.importorskip("cryptography", reason="cryptography makes the certificates of these tests")
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"throw-away authority {name}")])
        self.certificate = self._build(self.name, self.key.public_key(), is_authority=True)
        self.file = str(self._write(f"{name}.pem", self.certificate))

    def _build(self, subject, public_key, *, names=(), is_authority=False, days=(-1, 1)):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name: str, certificate, key=None) -> Path:
        from cryptography.hazmat.primitives import serialization

        pem = certificate.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            pem += key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        path = self.folder / name
        path.write_bytes(pem)
        return path

    def issue(self, name: str, *, days: tuple[int, int] = (-1, 1)) -> Path:
        """A certificate with its key in one PEM file, for a name or an address."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.x509.oid import NameOID

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            names = [x509.IPAddress(ipaddress.ip_address(name))]
        except ValueError:
            names = [x509.DNSName(name)]
        certificate = self._build(subject, key.public_key(), names=names, days=days)
        return self._write(f"{name}{days[1]}.pem", certificate, key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def encrypt(server, certificate: Path, **settings) -> str:
    """Has a capture server speak TLS; gives its url."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name, value in settings.items():
        setattr(context, name, value)
    if context.verify_mode == ssl.CERT_REQUIRED:
        context.load_verify_locations(certificate.parent / "ca.pem")
    # The handshake is the handler thread's business, or a client that makes none would stop all.
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True, do_handshake_on_connect=False)
    server.server.handle_error = lambda *_: None
    return server.url.replace("http:", "https:")


RECORD = """
import json
mm.init(flush_period=30)
for i in range(20): mm.log.info("x %d", i)
with mm.span("s"): pass
mm.metric("m").record(1)
print(json.dumps([mm.flush(20), mm.status()["last_error"]]))
"""
FAIL = """
import json, time
mm.init(flush_period=30)
mm.log.info("x")
arrived = mm.flush(0.3)
print(json.dumps([arrived, mm.status()["last_error"]]))
mm.shutdown(0.3)
"""


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("way", ["MICROMEGAS_CA_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_https(run, server, authority, version, way):
    url = encrypt(server, authority.issue("127.0.0.1"), maximum_version=getattr(ssl.TLSVersion, version))
    trusted = str(authority.folder) if way == "SSL_CERT_DIR" else authority.file
    done = run(RECORD, env={"MICROMEGAS_TELEMETRY_URL": url, way: trusted})
    assert json.loads(done.stdout) == [True, None]
    captured = server.captured
    assert captured.messages() == [f"x {i}" for i in range(20)]
    assert captured.measures("m") == [1]


def test_https_by_name_and_with_a_block_of_megabytes(run, server, authority):
    url = encrypt(server, authority.issue("localhost")).replace("127.0.0.1", "localhost")
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
    url = encrypt(server, authority.issue(name, days=days))
    trusted_file = authority.file if trusted else Authority(authority.folder, "other").file
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": trusted_file})
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert told in error
    assert server.captured.requests == []


def test_trouble_that_lasts_is_also_a_log_and_that_once(run, server):
    """The fourth failure, a second after the first, is worth telling; the fifth is nothing new."""

    def answers(route: str, headers: dict[str, str], body: bytes) -> int | tuple[int, dict[str, str]]:
        number = len(server.requests)
        return 200 if number > 4 else (503, {"retry-after": "0"} if number >= 3 else {})

    server.answer_request = answers
    run(
        """
        mm.init(flush_period=0.02)
        mm.log.info("x")
        assert mm.flush(30)
        mm.log.info("y")
        assert mm.flush(30)
        """
    )
    assert sorted(server.captured.messages()) == ["upload: insert_process: status 503: ", "x", "y"]


def test_https_to_a_port_that_speaks_http_and_the_reverse(run, server, authority):
    trust = {"MICROMEGAS_CA_FILE": authority.file}
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": server.url.replace("http:", "https:")} | trust)
    assert "does not speak TLS (is it a port for http://?)" in json.loads(done.stdout)[1]
    plain = server.url
    encrypt(server, authority.issue("127.0.0.1"))
    done = run(FAIL, env={"MICROMEGAS_TELEMETRY_URL": plain})
    assert json.loads(done.stdout)[0] is False
    assert "insert_process: " in json.loads(done.stdout)[1]


def test_client_certificates(run, server, authority):
    url = encrypt(server, authority.issue("127.0.0.1"), verify_mode=ssl.CERT_REQUIRED)
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    done = run(FAIL, env=environment)
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert any(sign in error for sign in ("CertificateRequired", "closed", "reset", "Broken pipe"))
    done = run(RECORD, env=environment | {"MICROMEGAS_CLIENT_CERTIFICATE": str(authority.issue("client.example"))})
    assert json.loads(done.stdout) == [True, None]
    assert set(server.captured.measures("m")) == {1}  # what the first program left in the spool may come along


def test_a_forked_child_reports_through_tls_of_its_own(run, server, authority):
    url = encrypt(server, authority.issue("127.0.0.1"))
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
        env={"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file},
    )
    assert done.stdout == "{0}\n"
    assert sorted(server.captured.messages()) == sorted([*(f"child {i}" for i in range(20)), "parent"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "https://h", "ca_file": "/does/not/exist"}, "/does/not/exist"),
        ({"url": "https://h", "ca_file": "/dev/null"}, "no certificate of an authority in /dev/null"),
        ({"url": f"http://user:{SECRET}@h"}, "credentials in a url get into logs"),
        ({"url": f"http://user:{SECRET}@h:x"}, "the port is no number"),
        ({"url": "http://h/?x=1"}, "a query"),
        ({"url": "http://h:70000"}, "the port is no number"),
        ({"url": "http://::1"}, "the port is no number"),
        ({"url": "http://server.example:9000 "[:-1] + "\u00e9"}, "only printable ascii"),
        ({"proxy": f"socks5://user:{SECRET}@h"}, "neither http nor https"),
        ({"headers": {"content-length": "1"}}, "the recorder's own to say"),
        ({"headers": {"x-key": f"{SECRET}\n"}}, "the value of header x-key holds more than printable ascii"),
        ({"headers": {"x y": SECRET}}, "no name of a header"),
        ({"headers": {"Authorization": SECRET}, "api_key": SECRET}, "only one can be sent"),
        ({"api_key": SECRET + "\r\n"}, "only printable ascii"),
    ],
)
def test_settings_of_the_upload_that_can_not_be(run, server, settings, told):
    done = run(
        f"""
        try: mm.init(**{settings!r})
        except ValueError as error: print(error)
        assert mm.status() is None
        """
    )
    assert told in done.stdout
    assert SECRET not in done.stdout


# ---- proxies


class Proxy:
    """Forwards requests in absolute form, and tunnels; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.refuses = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _note(self) -> bool:
                owner.asked.append((self.command, self.path, self.headers["proxy-authorization"]))
                if owner.refuses:
                    self.send_response(407)
                    self.send_header("content-length", "0")
                    self.end_headers()
                return owner.refuses

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self._note():
                    return
                url = urllib.parse.urlsplit(self.path)
                with socket.create_connection((url.hostname, url.port)) as upstream:
                    head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nconnection: close\r\n"
                    for name, value in self.headers.items():
                        if name.lower() not in ("host", "connection", "proxy-authorization"):
                            head += f"{name}: {value}\r\n"
                    upstream.sendall(head.encode() + b"\r\n" + body)
                    while chunk := upstream.recv(65536):
                        self.wfile.write(chunk)
                self.close_connection = True

            def do_CONNECT(self) -> None:
                if self._note():
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as upstream:
                    self.wfile.write(b"HTTP/1.1 200 go on\r\n\r\n")
                    ends = [self.connection, upstream]
                    while True:
                        ready, _, _ = select.select(ends, [], [], 20)
                        for end in ready:
                            chunk = end.recv(65536)
                            if not chunk:
                                self.close_connection = True
                                return
                            ends[1 - ends.index(end)].sendall(chunk)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.place = f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


def with_init(arguments: str, program: str = RECORD) -> str:
    return program.replace("flush_period=30", f"flush_period=30, {arguments}")


def test_a_plain_request_through_a_proxy(run, server, proxy):
    done = run(with_init(f"proxy='http://user:p%40{SECRET}@{proxy.place}'"))
    assert json.loads(done.stdout) == [True, None]
    assert server.captured.measures("m") == [1]
    authorization = "Basic " + base64.b64encode(f"user:p@{SECRET}".encode()).decode()
    assert {(method, authorization_) for method, _, authorization_ in proxy.asked} == {("POST", authorization)}
    assert all(url.startswith(server.url + "/ingestion/") for _, url, _ in proxy.asked)


def test_an_encrypted_request_through_a_proxy(run, server, authority, proxy):
    url = encrypt(server, authority.issue("127.0.0.1"))
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    done = run(with_init(f"proxy='{proxy.place}'"), env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert server.captured.measures("m") == [1]
    assert {(method, path) for method, path, _ in proxy.asked} == {("CONNECT", url.removeprefix("https://"))}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_other_credentials(run, server, authority, proxy, scheme):
    proxy.refuses = True
    url = server.url.replace("http:", f"{scheme}:")
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    done = run(with_init(f"proxy='http://user:{SECRET}@{proxy.place}'", FAIL), env=environment)
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert "407" in error
    assert SECRET not in done.stdout + done.stderr
    assert server.captured.requests == []


@pytest.mark.parametrize(
    ("variables", "through"),
    [
        ({"HTTP_PROXY": "http://{}"}, True),
        ({"http_proxy": "{}", "HTTP_PROXY": "http://127.0.0.1:1"}, True),
        ({"ALL_PROXY": "http://{}"}, True),
        ({"HTTPS_PROXY": "http://{}"}, False),
        ({"HTTP_PROXY": "http://{}", "REQUEST_METHOD": "GET"}, False),
        ({"HTTP_PROXY": "http://{}", "NO_PROXY": "other.example, .Example"}, False),
        ({"HTTP_PROXY": "http://{}", "no_proxy": "other.example"}, True),
    ],
)
def test_proxies_of_the_environment(run, server, proxy, variables, through):
    """The server has a name that only the proxy could find; asked directly, nobody is there."""
    environment = {name: value.format(proxy.place) for name, value in variables.items()}
    proxy.refuses = True
    run(FAIL, env=environment | {"MICROMEGAS_TELEMETRY_URL": "http://server.example:9000"})
    assert bool(proxy.asked) == through
    if through:
        assert proxy.asked[0][:2] == ("POST", "http://server.example:9000/ingestion/insert_process")


def test_a_server_on_this_machine_is_not_reached_through_a_proxy_of_the_environment(run, server, proxy):
    environment = {"HTTP_PROXY": f"http://{proxy.place}", "ALL_PROXY": f"http://{proxy.place}"}
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert proxy.asked == []


# ---- authentication


class TokenEndpoint:
    """Gives tokens `token 1`, `token 2` …, each with the answer of `answer(number, form)`."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[int, dict[str, str]], tuple[int, object]] = lambda number, form: (
            200,
            {"access_token": f"token-{number}", "expires_in": 3600, "token_type": "Bearer"},
        )
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                form = dict(urllib.parse.parse_qsl(text))
                owner.forms.append(form)
                self._answer(*owner.answer(len(owner.forms), form))

            def do_GET(self) -> None:
                found = self.path == "/realm/.well-known/openid-configuration"
                self._answer(200 if found else 404, {"token_endpoint": f"{owner.url}/token"})

            def _answer(self, status: int, answer: object) -> None:
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.environment = {
            "MICROMEGAS_OIDC_TOKEN_ENDPOINT": f"{self.url}/token",
            "MICROMEGAS_OIDC_CLIENT_ID": "recorder",
            "MICROMEGAS_OIDC_CLIENT_SECRET": SECRET,
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def tokens() -> Iterator[TokenEndpoint]:
    running = TokenEndpoint()
    yield running
    running.close()


def authorizations(server) -> list[str | None]:
    return [request.authorization for request in server.captured.requests]


def test_a_function_that_gives_a_token(run, server):
    done = run(with_init("auth=lambda: 'abc'"))
    assert json.loads(done.stdout) == [True, None]
    assert set(authorizations(server)) == {"Bearer abc"}
    assert server.captured.measures("m") == [1]


def test_a_function_that_gives_headers_beside_those_of_init(run, server):
    run(with_init("auth=lambda: {'Authorization': 'Custom abc'}, headers={'X-Tenant': 'blue'}"))
    assert set(authorizations(server)) == {"Custom abc"}
    seen = [request.headers for request in server.captured.requests]
    assert {headers["x-tenant"] for headers in seen} == {"blue"}
    assert all(headers["user-agent"].startswith("micromegas-python/") for headers in seen)
    assert {headers["content-type"] for headers in seen} == {"application/cbor"}


def test_nothing_is_sent_before_the_first_token_and_nothing_is_lost(run, server):
    done = run(
        """
        import threading
        ready = threading.Event()
        def token():
            ready.wait(20)
            return "abc"
        mm.init(flush_period=0.01, auth=token)
        for i in range(50): mm.log.info("x %d", i)
        print(mm.flush(0.3), mm.status()["sent_requests"], mm.status()["waiting_bytes"] > 0)
        ready.set()
        print(mm.flush(20), mm.status()["lost_events"])
        """
    )
    assert done.stdout == "False 0 True\nTrue 0\n"
    assert server.captured.messages() == [f"x {i}" for i in range(50)]
    assert set(authorizations(server)) == {"Bearer abc"}


def test_a_token_that_is_refused_is_renewed_and_nothing_is_lost(run, server):
    good = ["Bearer 1"]

    def answers(route: str, headers: dict[str, str], body: bytes) -> int:
        """The key is changed once the first block has come."""
        if headers["authorization"] != good[0]:
            return 401
        if route == "insert_block":
            good[0] = "Bearer 2"
        return 200

    server.answer_request = answers
    done = run(
        """
        import itertools
        numbers = itertools.count(1)
        mm.init(flush_period=30, auth=lambda: str(next(numbers)))
        mm.log.info("first")
        assert mm.flush(20)
        for i in range(5):
            mm.log.info("x %d", i)
            with mm.span("s"): pass
        print(mm.flush(20), mm.status()["lost_events"], next(numbers))
        """
    )
    assert done.stdout == "True 0 3\n"
    assert [text for text in server.captured.messages() if not text.startswith("upload")] == [
        "first",
        *(f"x {i}" for i in range(5)),
    ]


def test_a_key_that_is_refused_is_final(run, server):
    server.answer = lambda route, number: 401
    done = run(with_init(f"api_key={SECRET!r}", FAIL))
    assert json.loads(done.stdout) == [True, "insert_process: status 401: "]
    assert SECRET not in done.stdout + done.stderr
    assert len(server.captured.requests) == 1


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (f"lambda: exec('raise RuntimeError(\"{SECRET}\")')", "auth function: RuntimeError"),
        ("lambda: 5", "int is neither a token nor headers"),
        ("lambda: {}", "dict is neither a token nor headers"),
        ("lambda: ' '", "an empty token"),
        (
            f"lambda: chr(10).join(['{SECRET}', 'x'])",
            "the value of header authorization holds more than printable ascii",
        ),
        (f"lambda: {{'host': '{SECRET}'}}", "header host: the recorder's own to say"),
    ],
)
def test_a_function_that_fails_is_told_without_its_secret(run, server, function, told):
    """And asked again: the second time it gives a token, and what was told arrives as a log event."""
    done = run(
        f"""
        import itertools
        calls = itertools.count()
        fails = {function}
        mm.init(flush_period=30, auth=lambda: fails() if next(calls) == 0 else "abc")
        mm.log.info("x")
        print(mm.flush(20))
        mm.flush(20)
        print(mm.status())
        """
    )
    assert done.stdout.startswith("True\n")
    messages = server.captured.messages()
    assert "x" in messages
    assert any(told in text for text in messages)
    assert SECRET not in done.stdout + done.stderr + "".join(messages)


def test_client_credentials(run, server, tokens):
    environment = tokens.environment | {"MICROMEGAS_OIDC_SCOPE": "a b", "MICROMEGAS_OIDC_AUDIENCE": "lake"}
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert tokens.forms == [
        {
            "grant_type": "client_credentials",
            "client_id": "recorder",
            "client_secret": SECRET,
            "scope": "a b",
            "audience": "lake",
        }
    ]
    assert set(authorizations(server)) == {"Bearer token-1"}
    assert server.captured.measures("m") == [1]


def test_the_token_endpoint_is_found_at_the_issuer(run, server, tokens):
    environment = dict(tokens.environment, MICROMEGAS_OIDC_ISSUER=f"{tokens.url}/realm/")
    del environment["MICROMEGAS_OIDC_TOKEN_ENDPOINT"]
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert set(authorizations(server)) == {"Bearer token-1"}


def test_a_token_is_renewed_before_it_expires(run, server, tokens):
    tokens.answer = lambda number, form: (200, {"access_token": f"token-{number}", "expires_in": 2})
    run(
        """
        import time
        mm.init(flush_period=0.02)
        for i in range(400):
            mm.log.info("x")
            time.sleep(0.02)
            if i % 20 == 0 and mm.flush(10) and mm.status()["sent_events"] and i > 120: break
        """,
        env=tokens.environment,
    )
    assert set(authorizations(server)) >= {"Bearer token-1", "Bearer token-2"}
    assert all(request.status == 200 for request in server.captured.requests)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ((401, {"error": "invalid_client", "error_description": SECRET}), "127.0.0.1: status 401 (invalid_client)"),
        ((500, SECRET.encode()), "127.0.0.1: status 500"),
        ((200, b"<html>"), "its answer is no JSON object"),
        ((200, []), "its answer is no JSON object"),
        ((200, {"token": SECRET}), "no access_token"),
        ((302, {}), "status 302"),
    ],
)
def test_a_token_endpoint_that_fails_first(run, server, tokens, failure, told):
    good = tokens.answer
    tokens.answer = lambda number, form: failure if number == 1 else good(number, form)
    done = run(
        """
        mm.init(flush_period=30)
        mm.log.info("x")
        assert mm.flush(20)
        mm.flush(20)
        print(mm.status())
        """,
        env=tokens.environment,
    )
    messages = server.captured.messages()
    assert "x" in messages
    assert any(told in text for text in messages)
    assert SECRET not in done.stdout + done.stderr + "".join(messages)


def test_client_credentials_that_are_not_complete(run, server):
    done = run(
        """
        try: mm.init()
        except ValueError as error: print(error)
        """,
        env={"MICROMEGAS_OIDC_CLIENT_ID": "x"},
    )
    assert "not set: MICROMEGAS_OIDC_CLIENT_SECRET, MICROMEGAS_OIDC_TOKEN_ENDPOINT (or _ISSUER)" in done.stdout


def test_forked_and_spawned_children_let_themselves_in(run, server, tokens):
    done = run(
        """
        import multiprocessing, os
        def child(way):
            if mm.status() is None: mm.init()
            mm.log.info(way)
            os._exit(0 if mm.flush(20) else 1)
        if __name__ == "__main__":
            mm.init(flush_period=0.02)
            mm.log.info("parent")
            assert mm.flush(20)
            for way in ("fork", "spawn"):
                process = multiprocessing.get_context(way).Process(target=child, args=(way,))
                process.start()
                process.join()
                print(process.exitcode)
        """,
        env=tokens.environment,
    )
    assert done.stdout == "0\n0\n"
    # A child that leaves by os._exit may be told of by a later session, which finds its spool.
    messages = [
        text for text in server.captured.messages() if not text.startswith("the process ended without shutdown")
    ]
    assert sorted(messages) == ["fork", "parent", "spawn"]
    assert all((authorization or "").startswith("Bearer token-") for authorization in authorizations(server))


def test_a_function_that_never_returns_does_not_keep_the_program(run, server):
    done = run(
        """
        import time
        mm.init(auth=lambda: time.sleep(1000))
        mm.log.info("x")
        print(mm.shutdown(0.2))
        """
    )
    assert done.stdout == "False\n"
    assert server.captured.requests == []
