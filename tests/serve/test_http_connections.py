"""Connections to the HTTP server: over TLS, by which names, and compressed."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from serve.conftest import RunningApi, StartApi
from serve.http_calls import call, post
from servers.authority import Authority

from micromegas.config import ApiKey
from micromegas.serve.http.encodings import encoding_for
from micromegas.serve.http.host_check import is_known_host

EVENTS = {"sql": "SELECT n FROM wide ORDER BY n LIMIT 20000"}
LONG = {"sql": "SELECT n, pad FROM wide"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls_api(start_api: StartApi, authority: Authority) -> RunningApi:
    pem = authority.issue("127.0.0.1")
    return start_api(tls_certificate=pem, tls_key=pem)


def test_over_tls_everything_is_as_without(tls_api: RunningApi, api: RunningApi, authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.file)
    assert call(tls_api, "GET", "/health", tls=trusting).status == 200
    reply = post(tls_api, LONG, tls=trusting)
    assert reply.status == 200
    assert reply.body == post(api, LONG).body
    assert post(tls_api, {"sql": "nonsense"}, tls=trusting).problem == (400, "invalid")


def test_who_trusts_another_authority_asks_nothing(tls_api: RunningApi, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        call(tls_api, "GET", "/health", tls=ssl.create_default_context(cafile=other.file))
    assert tls_api.engine.requests == []


def test_without_tls_its_port_says_nothing(tls_api: RunningApi, authority: Authority) -> None:
    with socket.create_connection(("127.0.0.1", tls_api.port), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert not plain.recv(1000).startswith(b"HTTP")
    assert call(tls_api, "GET", "/health", tls=ssl.create_default_context(cafile=authority.file)).status == 200


def test_an_answer_that_breaks_off_over_tls_is_no_whole_one(tls_api: RunningApi, authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.file)
    with pytest.raises((OSError, ValueError, Exception)) as told:
        post(tls_api, {"sql": "SELECT n, pad, 'exhaust_late' FROM wide"}, tls=trusting)
    assert type(told.value).__name__ in {"IncompleteRead", "SSLEOFError", "ConnectionResetError"}


def test_a_certificate_that_does_not_fit_its_key_is_told_at_the_start(
    start_api: StartApi, authority: Authority, tmp_path: Path
) -> None:
    certificate, other = authority.issue("127.0.0.1"), Authority(tmp_path, "other").issue("localhost")
    with pytest.raises(OSError, match=r"certificate .* or its key can't be used"):
        start_api(tls_certificate=certificate, tls_key=other)


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:3000", True),
        ("10.1.2.3", True),
        ("[::1]:3000", True),
        ("::1", False),
        ("localhost:3000", True),
        ("LOCALHOST.", True),
        ("lake.localhost", True),
        ("micromegas:3000", True),
        ("telemetry.example.com:3000", True),
        ("Telemetry.Example.com", True),
        ("evil.example.com", False),
        ("127.0.0.1.evil.com:3000", False),
        ("localhost.evil.com", False),
        ("evil.com.", False),
        ("1.2.3", False),
        ("", False),
        (":3000", False),
        ("[evil]:1", False),
        ("[127.0.0.1.evil.com]", False),
    ],
)
def test_names_that_may_be_a_strangers_are_not_known(host: str, is_known: bool) -> None:
    assert is_known_host(host, {"telemetry.example.com"}) == is_known


def test_a_page_that_gave_its_name_to_this_machine_is_refused(api: RunningApi) -> None:
    for path in ("/api/query", "/gateway/query"):
        reply = post(api, EVENTS, path, host="evil.example.com:3000")
        assert reply.status == 421
        assert b"--allow-host" in reply.body
    assert call(api, "GET", "/api/perfetto/x", host="evil.example.com").status == 421
    assert api.engine.requests == []


def test_a_name_that_is_given_is_answered_to(start_api: StartApi) -> None:
    named = start_api(host_names=frozenset({"lake.example.com"}))
    assert post(named, EVENTS, host="lake.example.com:3000").status == 200
    assert post(named, EVENTS, host="other.example.com").status == 421


def test_where_keys_are_asked_for_any_name_will_do(start_api: StartApi) -> None:
    keyed = start_api(api_keys=(ApiKey("ann", "k-1"),))
    assert post(keyed, EVENTS, host="lake.example.com", authorization="Bearer k-1").status == 200
    assert post(keyed, EVENTS, host="lake.example.com").problem == (401, "unauthenticated")


def inflated(encoding: str, body: bytes) -> bytes:
    if encoding == "gzip":
        return zlib.decompress(body, 31)
    return bytes(pa.CompressedInputStream(pa.BufferReader(body), encoding).read())


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("query", [EVENTS, LONG], ids=["in one piece", "in many"])
@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/vnd.apache.arrow.stream"])
def test_compressed_answers_hold_the_same(api: RunningApi, encoding: str, query: dict[str, str], accept: str) -> None:
    plain = post(api, query, accept=accept)
    reply = post(api, query, accept=accept, accept_encoding=encoding)
    assert reply.headers["content-encoding"] == encoding
    assert reply.headers["content-type"] == plain.headers["content-type"]
    assert inflated(encoding, reply.body) == plain.body
    assert len(reply.body) < len(plain.body) / 2


def test_short_answers_and_refusals_come_as_they_are(api: RunningApi) -> None:
    for document, status in (({"sql": "SELECT 1 AS n"}, 200), ({"sql": "nonsense"}, 400)):
        reply = post(api, document, accept_encoding="gzip")
        assert (reply.status, reply.headers.get("content-encoding")) == (status, None)
        json.loads(reply.body)


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "identity"),
        ("", "identity"),
        ("br", "identity"),
        ("gzip, deflate, br", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("GZIP;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("gzip;q=x", "identity"),
    ],
)
def test_which_encoding_is_chosen(accept: str | None, name: str) -> None:
    assert encoding_for(accept).name == name


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_what_was_encoded_can_be_read_at_once(name: str) -> None:
    encoder = encoding_for(name).encoder()
    sent = encoder.encode(b"the first rows")
    if name == "gzip":
        assert zlib.decompressobj(31).decompress(sent) == b"the first rows"
    else:
        assert pa.CompressedInputStream(pa.BufferReader(sent), name).read(14) == b"the first rows"


def test_a_compressed_answer_that_breaks_off_ends_with_its_connection(api: RunningApi) -> None:
    with pytest.raises(http.client.IncompleteRead):
        post(api, {"sql": "SELECT n, pad, 'exhaust_late' FROM wide"}, accept_encoding="gzip")
