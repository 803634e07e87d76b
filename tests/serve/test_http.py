"""Queries over HTTP, against an engine over plain tables: forms of answers, refusals, readers that leave or stall."""

from __future__ import annotations

import asyncio
import base64
import csv
import gzip
import http.client
import io
import json
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from serve.conftest import RunningApi, StartApi, wait_until
from serve.http_calls import call, post

from micromegas.config import ApiKey, HttpSettings
from micromegas.serve.http.answer_formats import format_for
from micromegas.serve.http.listener import Listener
from micromegas.serve.http.problem import Problem

ARROW = "application/vnd.apache.arrow.stream"
MANY = "SELECT n, pad FROM wide"
LONG = f"{MANY} UNION ALL {MANY} UNION ALL {MANY} UNION ALL {MANY}"
HEAD = b"POST /api/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "


def connected(api: RunningApi, document: Any, *, window: int | None = None, more: bytes = b"") -> socket.socket:
    """A raw connection over which a query was sent."""
    raw = socket.socket()
    if window is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    raw.connect(("127.0.0.1", api.port))
    body = json.dumps(document).encode()
    head = HEAD.replace(b"host: x\r\n", b"host: x\r\n" + more)
    raw.sendall(head + f"{len(body)}\r\n\r\n".encode() + body)
    return raw


def test_rows_as_json(api: RunningApi) -> None:
    reply = post(api, {"sql": "SELECT time, word, text, value, nested, listed FROM events ORDER BY time"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["content-length"] == str(len(reply.body))
    assert [row["time"] for row in reply.rows][2:4] == [
        "2001-09-09T01:46:40.000000000Z",
        "2001-09-09T01:46:40.000000001Z",
    ]
    assert [row["word"] for row in reply.rows] == ["zero", "öne ☃", None, "öne ☃", "zero"]
    assert [row["value"] for row in reply.rows] == [1.5, None, "Infinity", -0.0, 1e300]
    assert reply.rows[0]["nested"] == {"word": "zero", "number": 1}
    assert post(api, {"sql": "SELECT n FROM wide WHERE n < 0"}).body == b"[]\n"


def test_every_form_holds_the_same_rows(api: RunningApi) -> None:
    query = {"sql": "SELECT time, text, value FROM events ORDER BY time"}
    rows = post(api, query).rows
    lines = post(api, query, accept="application/x-ndjson").body.splitlines()
    assert [json.loads(line) for line in lines] == rows
    with pa.ipc.open_stream(post(api, query, accept=ARROW).body) as reader:
        table = reader.read_all()
    assert table["text"].to_pylist() == [row["text"] for row in rows]
    reply = post(api, query, accept="text/csv;q=0.9, text/html")
    assert reply.headers["content-type"] == "text/csv"
    records = list(csv.DictReader(io.StringIO(reply.body.decode())))
    assert [record["time"] for record in records] == [row["time"] for row in rows]
    assert [record["text"] or None for record in records] == [row["text"] or None for row in rows]


def test_long_answers_come_in_pieces(api: RunningApi) -> None:
    for accept, count in (
        ("application/json", lambda body: len(json.loads(body))),
        (ARROW, lambda body: pa.ipc.open_stream(body).read_all().num_rows),
        ("text/csv", lambda body: body.count(b"\n") - 1),
    ):
        reply = post(api, {"sql": MANY}, accept=accept)
        assert reply.headers.get("transfer-encoding") == "chunked"
        assert count(reply.body) == 200_000


def test_what_a_request_says_reaches_the_engine(api: RunningApi) -> None:
    reply = post(
        api,
        {
            "sql": "SELECT n FROM wide WHERE n >= ? AND pad <> ? ORDER BY n",
            "begin": "2023-11-14T22:13:20.000000001Z",
            "end": 1_700_000_000_000_000_002,
            "limit": 2,
            "parameters": [7, "it's"],
        },
    )
    assert reply.rows == [{"n": 7}, {"n": 8}]
    (request,) = api.engine.requests
    assert (request.begin, request.end, request.limit) == (1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 2)
    assert request.administers
    before = time.time_ns()
    assert post(api, {"sql": "SELECT $b + $a AS c", "parameters": {"a": 1, "b": 2}, "begin": "-1h"}).rows == [{"c": 3}]
    assert abs(api.engine.requests[-1].begin - before + 3_600_000_000_000) < 600_000_000_000


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff{}", "no JSON"),
        ([], "no JSON object"),
        ({}, "sql"),
        ({"sql": "  "}, "sql"),
        ({"sql": 7}, "sql"),
        ({"sql": "SELECT '\ud800'"}, "surrogate"),
        (b'{"sql": "SELECT 1", "limit": 1, "limit": 2}', "'limit' is given more than once"),
        ({"sql": "SELECT 1", "lmit": 3}, "unknown 'lmit'"),
        ({"sql": "SELECT 1", "limit": -1}, "limit"),
        ({"sql": "SELECT 1", "limit": True}, "limit"),
        ({"sql": "SELECT 1", "begin": "yesterday"}, "begin: yesterday"),
        ({"sql": "SELECT 1", "end": [1]}, "end: not a time"),
        ({"sql": "SELECT $1", "parameters": []}, "1 parameters"),
        ({"sql": "SELECT $a", "parameters": {"b": 1}}, "parameters are a; given are b"),
        ({"sql": "SELECT $1", "parameters": "x"}, "an array or an object"),
        ({"sql": "SELECT $1", "parameters": [{}]}, "no type"),
        ({"sql": "SELECT $1", "parameters": [10**30]}, "parameter 1"),
        ({"sql": "SELECT ?, $1", "parameters": [1]}, "mixes"),
        ({"sql": "SELECT nothing FROM events"}, "nothing"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(api: RunningApi, document: Any, text: str) -> None:
    reply = post(api, document)
    assert reply.problem == (400, "invalid")
    assert text in reply.message
    assert post(api, {"sql": "SELECT 1 AS one"}).rows == [{"one": 1}]


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT 'fail_unimplemented_3'", 501, "unimplemented"),
        ("SELECT 'fail_exhausted_3'", 422, "exhausted"),
        ("SELECT 'fail_internal_2000'", 500, "internal"),
        ("SELECT 'exhaust_midway'", 422, "exhausted"),
        ("SELECT 'bug'", 500, "internal"),
        ("SELECT 'panic'", 500, "internal"),
        ("SELECT 'panic_midway'", 500, "internal"),
    ],
)
def test_failures_have_a_status_of_their_own(api: RunningApi, sql: str, status: int, code: str) -> None:
    assert post(api, {"sql": sql}).problem == (status, code)


def test_what_is_not_offered(api: RunningApi) -> None:
    assert call(api, "GET", "/api/query").problem == (405, "method")
    assert call(api, "GET", "/api/query").headers["allow"] == "POST"
    assert call(api, "OPTIONS", "/api/query").problem == (405, "method")
    assert call(api, "GET", "/nothing").problem == (404, "not_found")
    assert post(api, {"sql": "SELECT 1"}, content_type="text/plain").problem == (415, "media_type")
    packed = post(api, gzip.compress(b'{"sql": "SELECT 1"}'), content_encoding="gzip")
    assert packed.problem == (415, "media_type")
    assert packed.headers["accept-encoding"] == "identity"
    assert post(api, {"sql": "SELECT 1"}, accept="image/png").problem == (406, "not_acceptable")
    assert call(api, "GET", "/health").status == 200
    assert call(api, "HEAD", "/health").status == 200


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("TEXT/CSV; header=present", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        # of equals the more exact, then the earlier
        ("*/*, text/csv", "text/csv"),
        (f"{ARROW}, text/csv", ARROW),
        # what is named exactly is not meant by what is vaguer
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("text/*;q=0.3, text/csv;q=0.1, application/json;q=0.2", "application/json"),
        ("text/csv;q=0.5, application/json;q=7", "application/json"),
        ("text/csv;q=nan, application/json;q=0.001", "application/json"),
    ],
)
def test_which_form_is_chosen(accept: str | None, media_type: str) -> None:
    assert format_for(accept).media_type == media_type


@pytest.mark.parametrize("accept", ["*/*;q=0", "text/html", "*", "text/csv;q=0", "application/json;q=many"])
def test_which_forms_are_not_offered(accept: str) -> None:
    with pytest.raises(Problem, match="application/x-ndjson"):
        format_for(accept)


def test_a_list_may_stand_in_several_headers(api: RunningApi) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    connection.putrequest("POST", "/api/query")
    for name, value in (("content-type", "application/json"), ("accept", "text/csv"), ("accept", "image/png;q=0.5")):
        connection.putheader(name, value)
    body = json.dumps({"sql": "SELECT 1 AS one"}).encode()
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    assert (response.status, response.headers["content-type"]) == (200, "text/csv")
    response.read()
    connection.close()


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/csv", ARROW])
def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(api: RunningApi, accept: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        post(api, {"sql": f"{LONG} -- exhaust_late"}, accept=accept)
    assert post(api, {"sql": "SELECT 1 AS one"}).rows == [{"one": 1}]


def test_a_reader_that_leaves_ends_its_query(api: RunningApi) -> None:
    raw = connected(api, {"sql": "SELECT 'wait_for_ever'"})
    wait_until(api.engine.waiting.is_set)
    assert not api.engine.closed.is_set()
    raw.close()
    wait_until(api.engine.closed.is_set)


def test_a_reader_that_stalls_is_disconnected(start_api: StartApi) -> None:
    api = start_api(write_timeout_s=0.5)
    raw = connected(api, {"sql": LONG}, window=4096)
    wait_until(api.engine.closed.is_set)
    raw.settimeout(60)
    response = http.client.HTTPResponse(raw)
    response.begin()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    raw.close()


def test_requests_that_never_end_are_given_up(start_api: StartApi) -> None:
    api = start_api(header_timeout_s=0.2, body_timeout_s=0.2)
    for text in (b"", b"POST /api/qu", b"POST /api/query HTTP/1.1\r\nhost: x\r\n"):
        with socket.create_connection(("127.0.0.1", api.port), timeout=60) as raw:
            raw.sendall(text)
            with suppress(ConnectionResetError):
                assert raw.recv(100) == b""
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as raw:
        raw.sendall(HEAD + b"9\r\n\r\n{")
        assert b" 408 " in raw.recv(100)


def test_bodies_and_headers_have_limits(start_api: StartApi) -> None:
    api = start_api(max_body_bytes=1000)
    assert post(api, {"sql": "SELECT 1 --" + "x" * 1000}).problem == (413, "too_large")
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"y" * 100_000)
        assert b" 400 " in raw.recv(100)
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as raw:
        raw.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
        assert b" 400 " in raw.recv(100)
    assert post(api, {"sql": "SELECT 1 AS one"}).rows == [{"one": 1}]


def test_calls_at_once_have_a_limit(start_api: StartApi) -> None:
    api = start_api(max_calls=2)
    raw = connected(api, {"sql": "SELECT 'wait_for_ever'"})
    wait_until(api.engine.waiting.is_set)
    assert call(api, "GET", "/health").status == 503
    raw.close()
    wait_until(lambda: call(api, "GET", "/health").status == 200)


def test_keys(start_api: StartApi) -> None:
    keys = (ApiKey("ann", "k-1"), ApiKey("ops", "k-2"))
    api = start_api(api_keys=keys, admins=frozenset({"ops"}))
    query = {"sql": "SELECT 1 AS one"}
    basic = base64.b64encode(b"ann:k-1").decode()
    for wrong in ("", "Bearer k-3", "Bearer", "Basic !", "k-1"):
        reply = post(api, query, authorization=wrong)
        assert reply.problem == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert call(api, "GET", f"/api/perfetto/{'0' * 32}", authorization=wrong).status == 401
    assert not api.engine.requests
    for right, administers in ((f"Basic {basic}", False), ("Bearer k-1", False), ("Bearer k-2", True)):
        assert post(api, query, authorization=right).status == 200
        assert api.engine.requests[-1].administers == administers
    assert call(api, "GET", "/health").status == 200


def test_the_gateway_of_the_original(api: RunningApi) -> None:
    path = "/gateway/query"
    times = {"time_range_begin": "2023-11-14T22:13:20Z", "time_range_end": "2023-11-14T23:13:20+01:00"}
    assert post(api, {"sql": "SELECT 1 AS one", **times}, path).rows == [{"one": 1}]
    assert api.engine.requests[-1].begin == api.engine.requests[-1].end == 1_700_000_000_000_000_000
    assert post(api, {"sql": "SELECT n FROM wide WHERE n < 0;"}, path).rows == []
    for document, text in (
        ({"sql": "SELECT 1", "time_range_begin": "2023-11-14T22:13:20Z"}, b"both"),
        (
            {"sql": "SELECT 1", "time_range_begin": "2023-11-15T00:00:00Z", "time_range_end": "2023-11-14T00:00:00Z"},
            b"after",
        ),
        ({"sql": ""}, b"sql"),
        ({"sql": "SELEC"}, b"SELEC"),
    ):
        reply = post(api, document, path)
        assert (reply.status, reply.headers["content-type"]) == (400, "text/plain; charset=utf-8")
        assert text in reply.body
    assert call(api, "GET", "/gateway/health").rows["status"] == "healthy"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/perfetto/no-id", "not the id"),
        ("/api/perfetto/", "not the id"),
        (f"/api/perfetto/{'0' * 32}?begin=soon", "begin: soon"),
        (f"/api/perfetto/{'0' * 32}?type=all", "unknown 'type'"),
        (f"/api/perfetto/{'0' * 32}?types=all'", "types"),
        (f"/api/perfetto/{'0' * 32}?begin=1h&begin=2h", "2 times"),
    ],
)
def test_traces_that_cannot_be_are_refused(api: RunningApi, path: str, text: str) -> None:
    reply = call(api, "GET", path)
    assert reply.problem == (400, "invalid")
    assert text in reply.message
    assert not api.engine.requests


def test_stopping_lets_requests_finish(start_api: StartApi) -> None:
    api = start_api(drain_timeout_s=60)
    raw = connected(api, {"sql": MANY})
    wait_until(lambda: bool(api.engine.requests))
    stopping = threading.Thread(target=lambda: api.call(api.server.stop()))
    stopping.start()
    response = http.client.HTTPResponse(raw)
    response.begin()
    assert len(json.loads(response.read())) == 200_000
    stopping.join(60)
    assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        call(api, "GET", "/health")
    raw.close()


def test_stopping_lets_answers_be_read_to_their_end() -> None:
    size = 20_000_000

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def ask() -> int:
        listener = Listener(answer, HttpSettings(port=0, drain_timeout_s=60))
        await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        stopping = asyncio.create_task(listener.stop())
        body = await reader.read()
        await stopping
        writer.close()
        return len(body)

    assert asyncio.run(ask()) == size


def test_a_connection_serves_many_requests(api: RunningApi) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    for number in range(3):
        body = json.dumps({"sql": f"SELECT {number} AS n"})
        connection.request("POST", "/api/query", body, {"content-type": "application/json"})
        assert json.loads(connection.getresponse().read()) == [{"n": number}]
    connection.close()


def test_every_query_is_told_with_its_caller(start_api: StartApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flightsql_query_audit")

    def lines() -> list[dict[str, Any]]:
        return [json.loads(each.getMessage()) for each in caplog.records if each.name == "flightsql_query_audit"]

    api = start_api(api_keys=(ApiKey("ann", "k-1"),))
    key = {"authorization": "Bearer k-1"}
    reply = post(api, {"sql": "SELECT n FROM wide", "limit": 3, "begin": 5}, x_client_type="report", **key)
    post(api, {"sql": "SELECT 'fail_exhausted_3'"}, x_user_id="b%C3%A9", **key)
    post(api, {"sql": "SELECT 1"})
    raw = connected(api, {"sql": "SELECT 'wait_for_ever'"}, more=b"authorization: Bearer k-1\r\n")
    wait_until(api.engine.waiting.is_set)
    raw.close()
    wait_until(lambda: len(lines()) == 3)
    ok, failed, left = lines()
    told = {"client": "report", "client_ip": "127.0.0.1", "service_account_name": "ann", "status": "ok"}
    assert (
        ok.items() >= {**told, "output_rows": 3, "output_bytes": len(reply.body), "limit": 3, "range_begin": 5}.items()
    )
    assert failed.items() >= {"client": "http", "user": "bé", "status": "error", "error_class": "resource"}.items()
    assert left["status"] == "incomplete"
    assert {(each.user, each.client) for each in api.engine.requests} == {("ann", "report"), ("ann", "http")}
