"""Servers that answer slowly, by halves, with rubbish, too much or not at all: nothing is lost, nothing hangs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class RawServer:
    """Reads requests and answers with the bytes that `answer(number of the request)` gives; None hangs up.

    `deaf(number)`: this request is not even read.
    """

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.answer: Callable[[int], bytes | None] = lambda number: OK
        self.deaf: Callable[[int], bool] = lambda number: False
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family)
        host, self.port = self.listener.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            received = b""
            while True:
                with self.lock:
                    number = len(self.requests)
                if self.deaf(number):
                    with self.lock:
                        self.requests.append((b"", b""))
                    # what is not read makes the system reset the connection
                    connection.recv(10)
                    return
                while b"\r\n\r\n" not in received:
                    try:
                        chunk = connection.recv(65536)
                    except ConnectionResetError:
                        return
                    if not chunk:
                        return
                    received += chunk
                head, _, received = received.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                while len(received) < length:
                    received += connection.recv(65536)
                body, received = received[:length], received[length:]
                with self.lock:
                    number = len(self.requests)
                    self.requests.append((head, body))
                answer = self.answer(number)
                if answer is None:
                    return
                try:
                    connection.sendall(answer)
                except OSError:
                    return
                if b"connection: close" in answer or b"content-length" not in answer.lower():
                    return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def raw() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.close()


RECORD = """
import json
mm.init(flush_period=30)
mm.log.info("x")
arrived = mm.flush(20)
print(json.dumps([arrived, mm.status()]))
"""


def record(run, url: str, program: str = RECORD):
    done = run(program, env={"MICROMEGAS_TELEMETRY_URL": url})
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK, id="interim"),
        pytest.param(b"HTTP/1.1 200\r\nContent-Length:2\r\n\r\nok", id="no reason phrase"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ncontent-length-not: 0\r\n\r\n", id="no content"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nold", id="until the end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\ntrailer: 1\r\n\r\n",
            id="chunked",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it", id="half a body"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b"x" * 100_000, id="a huge body"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", id="a huge chunk"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", id="bare line feeds"),
        pytest.param(CLOSING, id="closing"),
    ],
)
def test_a_yes_is_a_yes(run, raw, answer):
    """Whatever follows the status; each request is sent once."""
    raw.answer = lambda number: answer
    arrived, status = record(run, raw.url)
    assert arrived
    assert status["lost_events"] == 0
    assert status["last_error"] is None
    assert len(raw.requests) == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "closed without an answer"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 2", "closed in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed in the middle of an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP/1.1"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 99 x\r\n\r\n", "not HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46\r\n", "speaks TLS"),
        (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", "has no colon"),
        (b"HTTP/1.1 101 Switch\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "interim answers only"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "too long"),
    ],
)
def test_no_answer_that_counts(run, raw, answer, told):
    """The same request is sent again; the reason is told."""
    raw.answer = lambda number: answer if number == 0 else OK
    done = run(
        """
        import json, time
        mm.init(flush_period=30)
        while mm.status()["last_error"] is None: time.sleep(0.001)
        mm.log.info("x")
        print(json.dumps([mm.flush(20), mm.status()]))
        """,
        env={"MICROMEGAS_TELEMETRY_URL": raw.url},
    )
    arrived, status = json.loads(done.stdout)
    assert arrived
    assert told in status["last_error"]
    assert status["lost_events"] == 0
    assert raw.requests[0][1] == raw.requests[1][1]


def test_a_connection_that_was_closed_while_it_was_idle_is_not_an_error(run, raw):
    """The server closes each connection after its answer without saying so: the next request notices."""
    closed = OK.replace(b"content-length: 0", b"x: y")  # ends with the connection
    raw.answer = lambda number: closed
    arrived, status = record(run, raw.url)
    assert arrived
    assert status["last_error"] is None


def test_a_connection_serves_many_requests(run, raw):
    _, status = record(
        run,
        raw.url,
        """
        import json
        mm.init(flush_period=30)
        for i in range(20):
            mm.log.info("x")
            assert mm.flush(20)
        print(json.dumps([True, mm.status()]))
        """,
    )
    assert status["sent_requests"] == 22
    assert raw.connections <= 3


def test_reset_while_sending(run, raw):
    """A megabyte is on its way when the server resets; it arrives with the second try."""
    raw.deaf = lambda number: number == 2
    arrived, status = record(
        run,
        raw.url,
        """
        import json, random
        mm.init(flush_period=30)
        mm.log.info("%s", random.randbytes(1_000_000).hex())
        print(json.dumps([mm.flush(20), mm.status()]))
        """,
    )
    assert arrived
    assert status["lost_events"] == 0


def test_a_server_that_never_answers_is_given_up_after_ten_seconds_but_ends_nobody_late(run, raw):
    """Shutdown waits no longer than it was told, whatever the connection does."""
    hold = threading.Event()
    raw.answer = lambda number: (hold.wait(30), None)[1]
    done = run(
        """
        import time
        mm.init()
        mm.log.info("x")
        begin = time.monotonic()
        print(mm.shutdown(0.3), time.monotonic() - begin < 5)
        """,
        env={"MICROMEGAS_TELEMETRY_URL": raw.url},
    )
    hold.set()
    assert done.stdout == "False True\n"


@pytest.mark.parametrize("status", [301, 307, 308])
def test_redirects_are_not_followed(run, raw, status):
    head = f"HTTP/1.1 {status} x\r\nlocation: {raw.url}/elsewhere\r\ncontent-length: 0\r\n\r\n".encode()
    raw.answer = lambda number: head
    arrived, told = record(run, raw.url)
    assert arrived  # answered for
    assert "redirects are not followed" in told["last_error"]
    assert told["losses"]["refused"]["logs"] >= 1
    assert all(b"/elsewhere" not in request for request, _ in raw.requests)


def test_ipv6(run):
    try:
        server = RawServer(socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        arrived, _ = record(run, server.url)
        assert arrived
        assert f"host: [::1]:{server.port}".encode() in server.requests[0][0]
    finally:
        server.close()


def test_a_prefix_of_the_url_is_kept(run, raw):
    arrived, _ = record(run, raw.url + "/lake/one/")
    assert arrived
    assert {head.split()[1].rpartition(b"/")[0] for head, _ in raw.requests} == {b"/lake/one/ingestion"}


def test_a_name_that_nobody_has(run):
    done = run(
        """
        import time
        mm.init(url="http://nobody.invalid:9000")
        mm.log.info("x")
        mm.flush(0.5)
        for _ in range(400):
            if mm.status()["last_error"]: break
            time.sleep(0.05)
        print(mm.status()["last_error"])
        mm.shutdown(0.2)
        """
    )
    assert "insert_process: nobody.invalid:9000: " in done.stdout


def test_the_server_tells_which_encodings_it_reads(run, server):
    program = "mm.init()\nprint(mm.status()['server_formats'])\nmm.flush()\nprint(mm.status()['server_formats'])"
    done = run(program)
    assert done.stdout.splitlines()[-1] == "['micromegas-transit']"
    header = {"micromegas-stream-formats": "micromegas-transit, micromegas-columns/1"}
    server.answer_request = lambda route, headers, body: (200, header)
    done = run(program)
    assert done.stdout.splitlines()[-1] == "['micromegas-transit', 'micromegas-columns/1']"
