"""What the transport sends without a copy it holds until that is sent or nobody waits for it any more, no longer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
from serve.raw_http2 import DATA, DO_GET, HEADERS, RST_STREAM, WINDOW_UPDATE, RawClient, frame, message

from micromegas._transport import Call, Layout, Transport

WINDOW = 65535
"""What a stream takes until its reader opens it."""
LENGTH = 3 * WINDOW


class Rows(bytearray):
    """Bytes whose end can be seen."""


class Driven:
    """A transport and its one client, both of this thread."""

    def __init__(self, transport: Transport, client: RawClient) -> None:
        self.transport = transport
        self.client = client
        client.ask(1, b"")
        begun: list[Call] = []
        while not begun:
            begun += transport.drive(True)[0]
        (self.call,) = begun

    def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.transport.drive(True)


@contextmanager
def driven(kernel_bytes: int | None = None) -> Iterator[Driven]:
    """`kernel_bytes`: about what the kernel takes for a reader that doesn't read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = Transport(
            unary_paths=[DO_GET],
            max_message_bytes=1_000_000,
            max_calls=10,
            patience_s=60,
            keepalive_s=60,
            keepalive_patience_s=60,
        )
        with RawClient(listener.getsockname()[1]) as client:
            accepted = listener.accept()[0]
            if kernel_bytes is not None:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kernel_bytes)
            transport.add(accepted.detach())
            yield Driven(transport, client)
    transport.close()


def written(call: Call) -> weakref.ref[Rows]:
    """A message that the window doesn't take, held by nobody but the transport."""
    rows = Rows(range(256)) * (LENGTH // 256)
    rows = Rows(rows + bytes(LENGTH - len(rows)))
    assert call.write(b"short", rows, b"after") == LENGTH + 10
    return weakref.ref(rows)


def batch_written(call: Call) -> weakref.ref[Rows]:
    """The same, as the column of a batch."""
    rows = Rows(8 * LENGTH)
    column = pa.Array.from_buffers(pa.int64(), LENGTH, [None, pa.py_buffer(rows)])
    batch = pa.record_batch({"c": column})
    layout = Layout(batch.schema, [64], bytes(64), (0, 8, 16, 32))
    _, body = layout.message(batch)
    assert call.write(b"short", body, b"after") == 8 * LENGTH + 10
    return weakref.ref(rows)


def opens_its_window(each: Driven) -> None:
    each.client.send(frame(WINDOW_UPDATE, 0, 1, (9 * LENGTH).to_bytes(4, "big")))
    each.client.send(frame(WINDOW_UPDATE, 0, 0, (9 * LENGTH).to_bytes(4, "big")))


def gives_up(each: Driven) -> None:
    each.client.send(frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")))


def hangs_up(each: Driven) -> None:
    each.client.socket.shutdown(socket.SHUT_RDWR)


def is_reset(each: Driven) -> None:
    each.call.reset()


def sees_the_end(each: Driven) -> None:
    each.transport.close()


@pytest.mark.parametrize("what", [opens_its_window, gives_up, hangs_up, is_reset, sees_the_end])
@pytest.mark.parametrize("writes", [written, batch_written])
def test_what_waits_is_held_until_it_is_sent_or_nobody_waits(
    writes: Callable[[Call], weakref.ref[Rows]], what: Callable[[Driven], None]
) -> None:
    with driven() as each:
        rows = writes(each.call)
        for _ in range(3):
            each.transport.drive(True)
            assert rows() is not None
            assert not each.call.has_room
        what(each)
        each.until(lambda: rows() is None)


def test_an_answer_is_not_over_before_the_kernel_has_it() -> None:
    with driven(kernel_bytes=4096) as each:
        each.client.send(frame(WINDOW_UPDATE, 0, 1, (2**30).to_bytes(4, "big")))
        each.client.send(frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        rows = Rows(2_000_000)
        held = weakref.ref(rows)
        each.call.write(rows)
        del rows
        each.until(lambda: each.call.has_room)
        assert not each.call.finish(0, "")
        for _ in range(10):
            each.transport.drive(True)
            assert not each.call.is_over
            assert held() is not None
        each.client.until(HEADERS, 1)
        reading = threading.Thread(target=each.client.until, args=(HEADERS, 1), daemon=True)
        reading.start()
        each.until(lambda: each.call.is_over)
        assert held() is None
        each.until(lambda: not reading.is_alive())


def test_bytes_arrive_as_they_were() -> None:
    with driven() as each:
        rows = written(each.call)
        sent = bytes(rows() or b"")
        opens_its_window(each)
        each.until(lambda: each.call.has_room)
        whole, received = message(b"short" + sent + b"after"), b""
        for each_frame in each.client.frames():
            if each_frame.kind == DATA:
                received += each_frame.payload
            if len(received) >= len(whole):
                break
        assert received == whole


@pytest.mark.parametrize(
    ("parts", "length"),
    [
        ([], 0),
        ([b""], 0),
        ([b"", pa.py_buffer(b""), memoryview(b"abc")], 3),
        ([pa.py_buffer(bytes(5000)), bytes(5000), memoryview(bytes(8000))[::1]], 18000),
        ([memoryview(bytes(8000)).cast("q")], 8000),
        ([bytes(1)] * 5000, 5000),
        ([bytes(4096), bytes(4095)] * 40, 40 * 8191),
    ],
)
def test_any_bytes_in_any_parts_are_one_message(parts: list[bytes], length: int) -> None:
    with driven() as each:
        each.client.send(frame(WINDOW_UPDATE, 0, 1, (2**30).to_bytes(4, "big")))
        each.client.send(frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        assert each.call.write(*parts) == length
        each.until(lambda: each.call.has_room)
        each.call.finish(0, "")
        each.until(lambda: each.transport.is_idle)
        received = b""
        for each_frame in each.client.frames():
            received += each_frame.payload if each_frame.kind == DATA else b""
            if len(received) >= 5 + length:
                break
        assert received == message(b"".join(bytes(part) for part in parts))


@pytest.mark.parametrize("part", ["text", None, 5, memoryview(bytes(8000))[::2]])
def test_what_is_no_piece_of_bytes_is_refused_and_nothing_is_sent(part: object) -> None:
    with driven() as each:
        with pytest.raises((TypeError, BufferError)):
            each.call.write(b"x" * 5000, part)  # type: ignore[arg-type]
        assert each.call.write(b"whole") == 5
        each.transport.drive(True)
        assert each.client.until(DATA).payload == message(b"whole")


RELEASES = """
import pyarrow as pa
from serve.test_lent_buffers import Layout, Rows, driven, gives_up

class Asking(Rows):
    def __del__(self):
        seen.append((call.has_room, transport.is_idle, call.write(b"late"), call.finish(0, "")))

def body():
    column = pa.Array.from_buffers(pa.int64(), 25_000, [None, pa.py_buffer(Asking(200_000))])
    batch = pa.record_batch({"c": column})
    return Layout(batch.schema, [64], bytes(64), (0, 8, 16, 32)).message(batch)[1]

seen = []
with driven() as each:
    call, transport = each.call, each.transport
    call.write(MADE)
    transport.drive(True)
    gives_up(each)
    each.until(lambda: seen)
"""


@pytest.mark.parametrize("made", ["Asking(200_000)", "body()"])
def test_giving_back_may_run_anything(made: str) -> None:
    """Where a lock were held it would stand still for ever: in a process of its own."""
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}\n{RELEASES.replace('MADE', made)}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
