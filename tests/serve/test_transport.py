"""The gRPC transport under peers that speak HTTP/2 wrongly, half, too much, or not at all: each is refused or let go,
and the server goes on for the others."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from pyarrow import flight
from serve.conftest import RunningServer, wait_until
from serve.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    DO_GET,
    DO_PUT,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    block,
    call_headers,
    frame,
    message,
)
from servers.authority import Authority

from micromegas.config import FlightSettings
from micromegas.serve.flight import messages
from micromegas.serve.grpc import GrpcServer, ServerCall

SERVICE = "/arrow.flight.protocol.FlightService/"
MUCH = 256 * 1024 * 1024
CANCEL = (8).to_bytes(4, "big")


def request_of(sql: str) -> bytes:
    ticket = messages.pack("TicketStatementQuery", statement_handle=sql.encode())
    body: bytes = messages.new("Ticket", ticket=ticket).SerializeToString()
    return body


ONE = request_of("SELECT 1 AS one")
WAITING = request_of("SELECT n FROM wide -- wait_for_ever")


def assert_answers(server: RunningServer) -> None:
    with flight.connect(server.uri) as client:
        ticket = flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=b"SELECT 1 AS one"))
        assert client.do_get(ticket).read_all().to_pydict() == {"one": [1]}


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        PREFACE[:10],
        PREFACE[:-2] + b"XX",
        bytes(1000),
        PREFACE + b"\xff" * 1000,
    ],
)
def test_who_does_not_greet_is_let_go(start_server: Callable[..., RunningServer], greeting: bytes) -> None:
    server = start_server(keepalive_s=0.2, keepalive_patience_s=0.2)
    with RawClient(server.server.port, greeting) as client:
        assert all(received.kind in (SETTINGS, GOAWAY, PING) for received in client.frames())
    assert_answers(server)


NONSENSE = {
    "data of no call": frame(DATA, 0, 1, b"x"),
    "an even stream": frame(HEADERS, END_HEADERS, 2, block(call_headers())),
    "a stream of old": frame(HEADERS, END_HEADERS, 9, block(call_headers()))
    + frame(HEADERS, END_HEADERS, 7, block(call_headers())),
    "a lonely continuation": frame(CONTINUATION, END_HEADERS, 1, block(call_headers())),
    "headers cut by another frame": frame(HEADERS, 0, 1, block(call_headers())) + frame(PING, 0, 0, bytes(8)),
    "no hpack": frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
    "a reset of nothing": frame(RST_STREAM, 0, 1, CANCEL),
    "a window of nothing": frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")),
    "a window past its end": frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4, "big")),
    "a window by nothing": frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "settings cut short": frame(SETTINGS, 0, 0, b"\0\4\0"),
    "settings of a stream": frame(SETTINGS, 0, 1),
    "a setting out of range": frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
    "a ping cut short": frame(PING, 0, 0, b"x"),
    "a frame too long": frame(DATA, 0, 1, bytes(100), length=2**24 - 1),
    "padding without end": frame(DATA, 8, 1, b"\xff"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_ends_its_connection_with_a_reason(server: RunningServer, name: str) -> None:
    with RawClient(server.server.port) as client:
        client.send(NONSENSE[name])
        last = [received for received in client.frames() if received.kind == GOAWAY]
        assert int.from_bytes(last[-1].payload[4:8], "big") != 0
    assert_answers(server)


@pytest.mark.parametrize(
    "headers",
    [
        call_headers() | {":method": "GET"},
        call_headers(content_type="text/plain"),
        {name: value for name, value in call_headers().items() if name != "content-type"},
        call_headers(grpc_timeout="soon"),
        call_headers(grpc_timeout="123456789S"),
        call_headers("/no/such/path"),
        call_headers(":"),
    ],
)
def test_a_call_that_is_none_is_answered_by_headers_alone(server: RunningServer, headers: dict[str, str]) -> None:
    with RawClient(server.server.port) as client:
        client.ask(1, ONE, headers)
        received = next(each for each in client.frames() if each.stream == 1)
        assert received.ends_stream or received.kind == RST_STREAM
        client.ask(3, ONE)
        assert not client.until(HEADERS, 3).ends_stream


@pytest.mark.parametrize(
    "body",
    [
        b"",
        message(ONE)[:-1],
        message(ONE, flag=2),
        message(ONE, flag=255),
        message(ONE, flag=1),
        message(gzip.compress(ONE), flag=1),
        message(ONE) + message(ONE),
        message(ONE) + b"\0",
        message(b"", length=2**32 - 1),
    ],
)
def test_what_is_no_message_is_refused(server: RunningServer, body: bytes) -> None:
    with RawClient(server.server.port) as client:
        client.begin(1)
        client.send(frame(DATA, END_STREAM, 1, body))
        assert client.until(HEADERS, 1).ends_stream
        client.ask(3, ONE)
        assert not client.until(HEADERS, 3).ends_stream


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("flag", [0, 1])
def test_garbage_of_any_compression_is_refused(server: RunningServer, encoding: str, flag: int) -> None:
    with RawClient(server.server.port) as client:
        client.begin(1, call_headers(grpc_encoding=encoding))
        client.send(frame(DATA, END_STREAM, 1, message(b"\xff" * 40, flag)))
        assert client.until(HEADERS, 1).ends_stream


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_taken_and_bombs_are_not(
    start_server: Callable[..., RunningServer], compression: grpc.Compression
) -> None:
    server = start_server(max_message_bytes=100_000)
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}", compression=compression) as channel:
        ask = channel.unary_stream(DO_GET)
        assert len(list(ask(request_of(f"SELECT 1 -- {'x' * 10_000}"), timeout=60))) >= 2
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(request_of(f"SELECT 1 -- {'x' * 1_000_000}"), timeout=60))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_is_refused_by_its_length_before_it_comes(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(max_message_bytes=1000)
    with RawClient(server.server.port) as client:
        client.begin(1)
        client.send(frame(DATA, 0, 1, message(b"", length=1001)))
        assert client.until(HEADERS, 1).ends_stream
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        with pytest.raises(grpc.RpcError, match=r"larger than max \(1000\)") as caught:
            list(channel.unary_stream(DO_GET)(bytes(1001), timeout=60))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_answers(server)


def test_requests_that_never_end_hold_so_much_and_no_more(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(max_message_bytes=60_000)
    with RawClient(server.server.port) as client:
        client.until(WINDOW_UPDATE, 0)
        for stream in (1, 3, 5, 7, 9):
            client.begin(stream)
            part = frame(DATA, 0, stream, bytes(11_000))
            client.send(frame(DATA, 0, stream, message(b"", length=60_000)), part * 5)
        # four of them fit
        assert client.until(HEADERS).ends_stream
    assert_answers(server)


def test_a_request_that_stalls_is_given_up(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(read_timeout_s=0.3, max_calls=1)
    with RawClient(server.server.port) as client:
        client.begin(1)
        client.send(frame(DATA, 0, 1, message(ONE)[:-1]))
        assert client.until(HEADERS, 1).ends_stream
        # its place is free again
        client.ask(3, ONE)
        assert not client.until(HEADERS, 3).ends_stream


def test_calls_beyond_the_limit_are_refused_until_one_ends(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(max_calls=2)
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        ask = channel.unary_stream(DO_GET)
        held = [ask(WAITING, timeout=60) for _ in range(2)]
        for each in held:
            next(each)
        with pytest.raises(grpc.RpcError, match="too many calls") as caught:
            list(ask(ONE, timeout=60))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        held[0].cancel()

        def status() -> grpc.StatusCode:
            answer = ask(ONE, timeout=60)
            with suppress(grpc.RpcError):
                list(answer)
            code: grpc.StatusCode = answer.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
            return code

        wait_until(lambda: status() == grpc.StatusCode.OK)


def test_calls_that_are_given_up_at_once_leave_nothing(start_server: Callable[..., RunningServer]) -> None:
    """Rapid resets: the connection may be ended for it, the server goes on."""
    server = start_server(max_calls=4)
    with RawClient(server.server.port) as client:
        reset = [
            frame(HEADERS, END_HEADERS, stream, block(call_headers()))
            + frame(DATA, END_STREAM, stream, message(WAITING))
            + frame(RST_STREAM, 0, stream, CANCEL)
            for stream in range(1, 6001, 2)
        ]
        with suppress(OSError):
            client.send(*reset)
            client.socket.shutdown(socket.SHUT_WR)
        for _ in client.frames():
            pass
    assert_answers(server)


@pytest.mark.parametrize("ends", [True, False])
def test_headers_without_measure_are_refused(server: RunningServer, ends: bool) -> None:
    """As one block, and as one that never ends."""
    large = block(call_headers(junk="x" * 15_000))
    with RawClient(server.server.port) as client:
        client.send(frame(HEADERS, 0, 1, large))
        with suppress(ConnectionError):
            for _ in range(5 if ends else 2000):
                client.send(frame(CONTINUATION, 0, 1, block({"more": "y" * 15_000})))
            client.send(frame(CONTINUATION, END_HEADERS, 1, block({"last": "z"})))
            client.send(frame(DATA, END_STREAM, 1, message(ONE)))
        answers = []
        for received in client.frames():
            answers.append(received)
            if received.stream == 1 or received.kind == GOAWAY:
                break
        assert answers
        assert not any(received.kind == DATA for received in answers)
    assert_answers(server)


@pytest.mark.parametrize(
    "flood",
    [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0, b"\0\4\0\1\0\0"), frame(SETTINGS, 0, 0)],
)
def test_who_asks_for_answers_without_reading_them_has_to_wait(server: RunningServer, flood: bytes) -> None:
    """What waits for such a peer is held by their socket, not by us."""
    with RawClient(server.server.port) as client:
        client.socket.settimeout(1)
        sent, chunk = 0, flood * 4000
        with suppress(TimeoutError, ConnectionError):
            while sent < MUCH:
                sent += client.socket.send(chunk)
        assert sent < MUCH
        assert_answers(server)


def test_a_peer_that_is_gone_without_a_word_loses_its_query(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(keepalive_s=0.2, keepalive_patience_s=0.3)
    with RawClient(server.server.port) as client:
        client.ask(1, WAITING)
        assert server.engine.waiting.wait(60)
        for _ in range(3):
            ping = client.until(PING)
            assert not server.engine.closed.is_set()
            client.send(frame(PING, ACK, 0, ping.payload))
        # from here on it is half open, as after a pulled cable
        assert server.engine.closed.wait(60)


def test_a_connection_that_is_asked_and_answers_is_kept(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(keepalive_s=0.05, keepalive_patience_s=30.0)
    with flight.connect(server.uri) as client:
        ticket = flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=b"SELECT 1 -- wait_for_ever"))
        reader = client.do_get(ticket)
        assert server.engine.waiting.wait(60)
        assert not server.engine.closed.wait(1)
        reader.cancel()
        assert server.engine.closed.wait(60)


def test_a_deadline_is_the_servers_too(start_server: Callable[..., RunningServer]) -> None:
    """Whatever the client does meanwhile."""
    server = start_server()
    with RawClient(server.server.port) as client:
        client.ask(1, WAITING, call_headers(grpc_timeout="300m"))
        assert server.engine.closed.wait(60)
        assert any(each.ends_stream for each in client.frames() if each.stream == 1)


@pytest.mark.parametrize("how", ["resets", "hangs up", "half closes"])
def test_whoever_leaves_ends_their_query(server: RunningServer, how: str) -> None:
    server.engine.forget()
    with RawClient(server.server.port) as client:
        client.ask(1, WAITING)
        assert server.engine.waiting.wait(60)
        if how == "resets":
            client.send(frame(RST_STREAM, 0, 1, CANCEL))
        elif how == "half closes":
            client.socket.shutdown(socket.SHUT_WR)
        else:
            client.__exit__()
        assert server.engine.closed.wait(60)


def test_a_put_that_is_given_up_midway_ends(server: RunningServer) -> None:
    with RawClient(server.server.port) as client:
        client.begin(1, call_headers(DO_PUT))
        client.send(frame(DATA, 0, 1, message(b"\x0a", length=50)))
        client.send(frame(RST_STREAM, 0, 1, CANCEL))
        client.ask(3, ONE)
        assert not client.until(HEADERS, 3).ends_stream


def test_a_put_that_was_refused_midway_ends(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(read_timeout_s=600.0, drain_timeout_s=600.0)
    with RawClient(server.server.port) as client:
        client.begin(1, call_headers(DO_PUT))
        # begun, or there is nobody to be told
        client.send(frame(PING, 0, 0, bytes(8)))
        client.until(PING)
        client.send(frame(DATA, 0, 1, message(b"", flag=2)))
        assert client.until(HEADERS, 1).ends_stream
        # waits for all calls, and gives up after 60 s
        server.call(server.server.stop())


@pytest.mark.parametrize("first", ["deadline", "caller"])
def test_whoever_cleans_up_after_a_call_is_not_interrupted(first: str) -> None:
    """By a caller that leaves at the deadline, or the other way round."""

    async def ask() -> bool:
        begun, cleaning, cleaned, goes_on = (asyncio.Event() for _ in range(4))

        async def handler(_: ServerCall) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await goes_on.wait()
                cleaned.set()

        server = GrpcServer(FlightSettings(port=0), lambda _: handler, [DO_GET])
        await server.start()
        with RawClient(server.port) as client:
            client.ask(1, b"", call_headers(grpc_timeout="400m"))
            await (cleaning if first == "deadline" else begun).wait()
            client.send(frame(RST_STREAM, 0, 1, CANCEL), frame(PING, 0, 0, bytes(8)))
            await asyncio.to_thread(client.until, PING)
            await asyncio.sleep(0.8)
            goes_on.set()
            await server.stop(60)
        return cleaned.is_set()

    assert asyncio.run(ask())


def test_a_stop_is_told_and_lets_answers_end(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(drain_timeout_s=60.0)
    with RawClient(server.server.port) as client:
        client.ask(1, request_of("SELECT n FROM wide LIMIT 10"))
        assert not client.until(HEADERS, 1).ends_stream
        client.begin(3, call_headers(SERVICE + "DoPut"))
        stopped = threading.Thread(target=lambda: server.call(server.server.stop()))
        stopped.start()
        goaway = client.until(GOAWAY)
        assert int.from_bytes(goaway.payload[4:8], "big") == 0
        client.send(frame(DATA, END_STREAM, 3, b""))
        assert client.until(HEADERS, 3).ends_stream
        stopped.join(60)
        assert not stopped.is_alive()


def test_a_reader_that_takes_nothing_is_waited_for_and_costs_no_more(
    start_server: Callable[..., RunningServer],
) -> None:
    """The window of a stream is 65535 bytes until it is opened; the rows of the query have 10 MB."""
    server = start_server(write_timeout_s=0.5)
    with RawClient(server.server.port) as client:
        client.ask(1, request_of("SELECT * FROM wide"))
        assert server.engine.closed.wait(60)
        sizes = []
        for received in client.frames():
            if received.kind == DATA:
                sizes.append(len(received.payload))
            if received.stream == 1 and (received.kind == RST_STREAM or received.flags & END_STREAM):
                break
        assert sum(sizes) == 65535


BIG_WINDOWS = frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(
    WINDOW_UPDATE, 0, 0, (2**31 - 65536).to_bytes(4, "big")
)


def test_answers_that_nobody_reads_keep_their_places(start_server: Callable[..., RunningServer]) -> None:
    """Whatever windows were opened: more than the socket takes isn't held for a caller."""
    server = start_server(max_calls=5)

    def is_full() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
            answer = channel.unary_stream(DO_GET)(ONE, timeout=60)
            with suppress(grpc.RpcError):
                list(answer)
            return bool(answer.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)

    with RawClient(server.server.port, PREFACE + BIG_WINDOWS) as client:
        for stream in range(1, 401, 2):
            client.ask(stream, request_of("SELECT n FROM wide LIMIT 50000"))
            if is_full():
                # those on their way are done by then
                time.sleep(1)
                if is_full():
                    break
        else:
            pytest.fail("HTTP/2 holds it all")
    wait_until(lambda: not is_full())


def test_who_reads_nothing_is_let_go_whatever_they_send(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(keepalive_s=0.3, keepalive_patience_s=0.3, read_timeout_s=0.4)
    with RawClient(server.server.port, PREFACE + BIG_WINDOWS) as client:
        for stream in range(1, 201, 2):
            client.ask(stream, request_of("SELECT n FROM wide LIMIT 50000"))

        def is_let_go() -> bool:
            try:
                client.send(frame(PRIORITY, 0, 1, bytes(5)))
            except ConnectionError:
                return True
            return False

        wait_until(is_let_go)
    assert_answers(server)


def test_a_peer_without_a_word_of_tls_is_let_go(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    both = Authority(tmp_path).issue("localhost")
    server = start_server(tls_certificate=both, tls_key=both, keepalive_s=0.2, keepalive_patience_s=0.2)
    for greeting in (b"", PREFACE, b"\x16\x03\x01\x00\x05hello"):
        with RawClient(server.server.port, greeting) as client:
            # nothing, or an alert of TLS, which is no frame
            assert all(received.kind not in (HEADERS, DATA) for received in client.frames())
