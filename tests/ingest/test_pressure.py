"""Group commit under pressure: full queues, failing sinks (made for it), poisoned items, shutting down."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from senders import block_body, new_id, process_body, stream_body
from servers.ingest import RunningIngest, post, request, running_ingest
from servers.proxy import CuttableProxy
from servers.s3 import S3Server

from micromegas.config import IngestSettings, LakeSettings
from micromegas.lake import Lake
from micromegas.wire import Batch, SinkUnavailable


class ScriptedSink:
    """Keeps what it is given, after `before` has let it pass."""

    advised_lanes = 1

    def __init__(self, before: Callable[[Batch], None] = lambda batch: None) -> None:
        self.before = before
        self.stored: set[str] = set()
        self.batches: list[int] = []

    def commit(self, batch: Batch) -> None:
        self.before(batch)
        self.batches.append(len(batch.blocks))
        self.stored |= {each.block_id for each in batch.blocks}


class Gate:
    """Holds commits until opened, and tells when one is held."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch: Batch) -> None:
        self.entered.set()
        assert self.opened.wait(30)


def send_blocks(service: RunningIngest, ids: list[str], threads: int = 16) -> dict[str, int]:
    with ThreadPoolExecutor(threads) as pool:
        statuses = pool.map(lambda each: post(service.port, "block", block_body(new_id(), new_id(), each)), ids)
        return dict(zip(ids, statuses, strict=True))


def test_what_arrives_during_a_commit_goes_into_the_next() -> None:
    gate = Gate()
    sink = ScriptedSink(gate)
    ids = [new_id() for _ in range(20)]
    with running_ingest(sink) as service, ThreadPoolExecutor(20) as pool:
        first = pool.submit(post, service.port, "block", block_body(new_id(), new_id(), ids[0]))
        assert gate.entered.wait(30)
        rest = [pool.submit(post, service.port, "block", block_body(new_id(), new_id(), each)) for each in ids[1:]]
        while waiting_rows(service) < len(ids):
            pass
        gate.opened.set()
        assert {each.result() for each in [first, *rest]} == {200}
    assert sink.stored == set(ids)
    assert sink.batches == [1, len(ids) - 1]


def test_a_full_queue_is_503_and_recovers() -> None:
    gate = Gate()
    sink = ScriptedSink(gate)
    settings = IngestSettings(port=0, queue_rows=5)
    with running_ingest(sink, settings) as service, ThreadPoolExecutor(5) as pool:
        waiting = []
        for _ in range(5):
            waiting.append(pool.submit(post, service.port, "block", block_body(new_id(), new_id(), new_id())))
        assert gate.entered.wait(30)
        while waiting_rows(service) < 5:
            pass
        status, text, headers = request(service.port, "POST", "/ingestion/insert_process", process_body(new_id()))
        assert (status, text) == (503, b"the queue is full")
        assert int(headers["retry-after"]) > 0
        assert request(service.port, "GET", "/health")[0] == 200
        gate.opened.set()
        assert {each.result() for each in waiting} == {200}
        assert post(service.port, "process", process_body(new_id())) == 200


def waiting_rows(service: RunningIngest) -> int:
    """Looks into the running service, so that the tests need not sleep."""
    return service._server._app._group_commit._rows


def test_bytes_are_bounded_too() -> None:
    gate = Gate()
    sink = ScriptedSink(gate)
    settings = IngestSettings(port=0, queue_bytes=1_000_000, max_body_bytes=900_000)
    big = block_body(new_id(), new_id(), new_id(), size=600_000)
    with running_ingest(sink, settings) as service, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, service.port, "block", big)
        assert gate.entered.wait(30)
        assert post(service.port, "block", big) == 503
        assert post(service.port, "block", big) == 503, "a refused body gives its bytes back"
        gate.opened.set()
        assert first.result() == 200
        assert post(service.port, "block", big) == 200
        assert service._server._app._group_commit._bytes == 0


def test_an_unavailable_sink_is_503_and_nothing_is_lost_silently() -> None:
    def away(batch: Batch) -> None:
        raise SinkUnavailable("the password is hunter2")

    sink = ScriptedSink(away)
    with running_ingest(sink) as service:
        status, text, headers = request(
            service.port, "POST", "/ingestion/insert_block", block_body(new_id(), new_id(), new_id())
        )
        assert (status, text) == (503, b"storage does not answer")
        assert "retry-after" in headers
        sink.before = lambda batch: None
        ids = [new_id() for _ in range(10)]
        assert set(send_blocks(service, ids).values()) == {200}
        assert sink.stored == set(ids)


def test_one_poisoned_item_does_not_fail_its_neighbours() -> None:
    poison = {new_id() for _ in range(3)}

    def refuse(batch: Batch) -> None:
        for each in batch.blocks:
            if each.block_id in poison:
                raise RuntimeError(f"cannot store {each.block_id}, see /secret/path")

    sink = ScriptedSink(refuse)
    ids = [*poison, *(new_id() for _ in range(40))]
    with running_ingest(sink) as service:
        statuses = send_blocks(service, ids, threads=43)
        assert {each for each, status in statuses.items() if status == 500} == poison
        assert {each for each, status in statuses.items() if status == 200} == set(ids) - poison
        answer = request(
            service.port, "POST", "/ingestion/insert_block", block_body(new_id(), new_id(), next(iter(poison)))
        )
        assert answer[:2] == (500, b"storage failed on this item")
    assert sink.stored == set(ids) - poison


def test_stopping_finishes_what_was_taken_and_refuses_the_rest() -> None:
    gate = Gate()
    sink = ScriptedSink(gate)
    server = RunningIngest(sink, IngestSettings(port=0), lambda: None)
    accepted, refused = new_id(), new_id()
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(post, server.port, "block", block_body(new_id(), new_id(), accepted))
        assert gate.entered.wait(30)
        with socket.create_connection(("127.0.0.1", server.port)) as idle:
            stopping = pool.submit(server.stop)
            while not server._server._app._is_draining:
                pass
            assert post(server.port, "block", block_body(new_id(), new_id(), refused)) == 503
            assert request(server.port, "GET", "/ready")[0] == 503
            assert request(server.port, "GET", "/health")[0] == 200
            gate.opened.set()
            assert waiting.result() == 200
            stopping.result(60)
            idle.close()
    assert sink.stored == {accepted}


def test_readiness_says_503_while_a_store_is_away_or_hangs() -> None:
    state: dict[str, object] = {"error": None}
    hang = threading.Event()

    def check() -> None:
        if state["error"] == "hang":
            hang.wait(30)
        elif state["error"]:
            raise SinkUnavailable("db at 10.0.0.1 is away")

    settings = IngestSettings(port=0, ready_timeout_s=0.2, ready_cache_s=0.0)
    with running_ingest(ScriptedSink(), settings, check) as service:
        assert request(service.port, "GET", "/ready")[0] == 200
        state["error"] = "away"
        assert request(service.port, "GET", "/ready")[:2] == (503, b"not ready")
        state["error"] = "hang"
        assert {request(service.port, "GET", "/ready")[0] for _ in range(3)} == {503}
        state["error"] = None
        hang.set()
        while request(service.port, "GET", "/ready")[0] != 200:
            pass


def test_a_good_readiness_is_asked_once_a_while() -> None:
    calls = []
    settings = IngestSettings(port=0, ready_cache_s=3600.0)
    with running_ingest(ScriptedSink(), settings, lambda: calls.append(1)) as service:
        assert {request(service.port, "GET", "/ready")[0] for _ in range(5)} == {200}
    assert len(calls) == 1


def test_a_body_that_never_ends_is_given_up() -> None:
    settings = IngestSettings(port=0, body_timeout_s=0.2)
    with running_ingest(ScriptedSink(), settings) as service:
        for head in (b"Content-Length: 1000", b"Content-Length: 200000", b"Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
                connection.sendall(b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 503")


def test_s3_down_is_503_and_accepted_again_later(s3_server: S3Server, tmp_path: Path) -> None:
    proxy = CuttableProxy(s3_server.port)
    bucket = s3_server.create_bucket(endpoint=f"http://127.0.0.1:{proxy.port}")
    settings = LakeSettings(lake_dir=tmp_path, object_store=bucket.url, object_store_options=bucket.options)
    process_id, stream_id, block_id = new_id(), new_id(), new_id()
    body = block_body(process_id, stream_id, block_id)
    with Lake.open(settings) as lake, running_ingest(lake, IngestSettings(port=0), lake.check) as service:
        proxy.cut()
        assert post(service.port, "block", body) == 503
        assert request(service.port, "GET", "/ready")[0] == 503
        proxy.restore()
        assert post(service.port, "block", body) == 200
        assert post(service.port, "stream", stream_body(process_id, stream_id)) == 200
        assert post(service.port, "process", process_body(process_id)) == 200
        assert [row.block_id for row in lake.metadata.blocks()] == [block_id]
    proxy.close()
