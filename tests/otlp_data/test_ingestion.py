"""The OTLP endpoints over HTTP: what they store, what they answer, and what hostile bodies do beside good ones."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import uuid
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from otlp_data.making import varint
from otlp_data.reference import as_json
from servers.ingest import RunningIngest, request, running_ingest

from micromegas.config import ApiKey, IngestSettings, LakeSettings
from micromegas.lake import Lake
from micromegas.wire import Batch, SinkUnavailable

PROTOBUF = {"content-type": "application/x-protobuf"}
GZIPPED = PROTOBUF | {"content-encoding": "gzip"}
JSON = {"content-type": "application/json; charset=utf-8"}
NOW = 1_700_000_000_000_000_000


@pytest.fixture
def service(lake: Lake) -> Iterator[RunningIngest]:
    with running_ingest(lake) as server:
        yield server


@pytest.fixture(scope="module")
def folder_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as lake:
        yield lake


@pytest.fixture(scope="module")
def folder_service(folder_lake: Lake) -> Iterator[RunningIngest]:
    settings = IngestSettings(
        port=0, otlp_max_body_bytes=100_000, otlp_max_inflated_bytes=3_000_000, api_keys=(ApiKey("a", "good key"),)
    )
    with running_ingest(folder_lake, settings) as server:
        yield server


ALLOWED = {"authorization": "Bearer good key"}


def resource(**attributes: Any) -> Resource:
    pairs = []
    for key, value in attributes.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        pairs.append(KeyValue(key=key.replace("__", "."), value=AnyValue(**{kind: value})))
    return Resource(attributes=pairs)


def logs(*texts: str, of: Resource | None = None, time: int = NOW) -> ExportLogsServiceRequest:
    records = [LogRecord(time_unix_nano=time, body=AnyValue(string_value=text)) for text in texts]
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=of or resource(), scope_logs=[ScopeLogs(log_records=records)])]
    )


def post(port: int, signal: str, body: bytes, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(port, "POST", f"/ingestion/otlp/v1/{signal}", body, PROTOBUF | fields)


def status_of(body: bytes) -> tuple[int, str]:
    status = Status.FromString(body)
    return status.code, status.message


WHOLE = {
    "service.namespace": "Shop EU",
    "service.name": " Cart ",
    "service.instance.id": "I-1",
    "host.name": "Höst",
    "host.id": "H1",
    "process.pid": 42,
    "process.creation.time": "2024-01-02T03:04:05.123456789Z",
    "process.user.name": "Ann",
    "os.type": "LINUX",
    "os.description": "Debian 12",
    "host.cpu.model.name": "Z80",
    "telemetry.sdk.name": "opentelemetry",
    "other": "kept",
}


def test_a_resource_becomes_a_process_a_stream_and_a_block(lake: Lake, service: RunningIngest) -> None:
    attributes = {key.replace(".", "__"): value for key, value in WHOLE.items()}
    message = logs("a", "b", of=resource(**attributes))
    message.resource_logs[0].scope_logs[0].log_records[1].time_unix_nano = NOW + 5
    body = message.SerializeToString()
    assert post(service.port, "logs", body)[:2] == (200, b"")

    (block,) = lake.metadata.blocks()
    # by hand from the specification, trimmed and in lower case but for pid and time
    parts = ["h1", "höst", "42", WHOLE["process.creation.time"], "shop eu", "cart", "i-1", "ann", "linux", "", ""]
    parts += ["debian 12", *[""] * 7, "z80", *[""] * 5, "opentelemetry", *[""] * 5]
    process_id = str(uuid.uuid5(uuid.UUID("80a447b8-fcdd-42a6-a613-f6c8719cd5fe"), "\x1f".join(map(str, parts))))
    stream_id = str(uuid.uuid5(uuid.UUID("fe93bacf-e851-4cf6-8526-05f8454b3488"), f"{process_id}\x1flogs"))
    assert (block.process_id, block.stream_id) == (process_id, stream_id)
    assert block.block_id == block_id_of(message.resource_logs[0].SerializeToString())
    assert (block.begin_time, block.end_time) == (block.begin_ticks, block.end_ticks) == (NOW, NOW + 5)
    assert (block.nb_objects, block.object_offset) == (2, 0)

    process = lake.metadata.processes([process_id])[process_id]
    created = 1_704_164_645_123_456_789
    assert (process.exe, process.username, process.realname) == ("Shop EU/ Cart ", "Ann", "Ann")
    assert (process.computer, process.distro, process.cpu_brand) == ("Höst", "Debian 12", "Z80")
    assert (process.start_time, process.start_ticks, process.tsc_frequency) == (created, created, 1_000_000_000)
    assert process.parent_process_id is None
    assert process.properties == {f"otel.resource.{key}": str(value) for key, value in WHOLE.items()}
    stream = lake.metadata.streams([stream_id])[stream_id]
    assert (stream.tags, stream.format, stream.properties) == (["log"], "otlp/v1/logs", {})
    assert stream.dependencies_metadata == stream.objects_metadata == b"\x80"

    # the same once more, in either encoding, adds nothing
    for headers, again in ((PROTOBUF, body), (JSON, as_json(message)), (PROTOBUF, body)):
        assert request(service.port, "POST", "/ingestion/otlp/v1/logs", again, headers)[0] == 200
    assert lake.metadata.blocks() == [block]


def block_id_of(message: bytes) -> str:
    import hashlib

    digest = hashlib.sha1(uuid.UUID("5829a6f7-0577-4c8c-862f-cf4fdab445cc").bytes + message).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def test_every_kind_of_request(lake: Lake, service: RunningIngest) -> None:
    of = resource(service__name="one")
    number = Metric(name="m", sum=Sum(data_points=[NumberDataPoint(time_unix_nano=NOW + 1, as_int=1)]))
    summary = Metric(name="s", summary=Summary(data_points=[SummaryDataPoint(time_unix_nano=NOW + 2)]))
    metrics = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=of, scope_metrics=[ScopeMetrics(metrics=[number, summary])])]
    )
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=NOW + 3, end_time_unix_nano=NOW + 9)
    traces = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=of, scope_spans=[ScopeSpans(spans=[span])])]
    )
    for signal, message in (("logs", logs("x", of=of)), ("metrics", metrics), ("traces", traces)):
        assert post(service.port, signal, message.SerializeToString())[0] == 200
    found = {
        stream.format: (stream.tags, block.nb_objects, block.begin_time - NOW, block.end_time - NOW)
        for block in lake.metadata.blocks()
        for stream in [lake.metadata.streams([block.stream_id])[block.stream_id]]
    }
    assert found == {
        "otlp/v1/logs": (["log"], 1, 0, 0),
        "otlp/v1/metrics": (["metrics"], 5, 1, 2),
        "otlp/v1/traces": (["trace"], 1, 3, 9),
    }
    assert len({block.process_id for block in lake.metadata.blocks()}) == 1


def test_many_resources_are_stored_and_empty_ones_are_not(lake: Lake, service: RunningIngest) -> None:
    message = ExportLogsServiceRequest()
    for index in range(20):
        message.resource_logs.extend(logs("x", of=resource(service__name=f"s{index}")).resource_logs)
        message.resource_logs.append(ResourceLogs(resource=resource(service__name=f"empty{index}")))
    assert post(service.port, "logs", gzip.compress(message.SerializeToString()), content_encoding="gzip")[0] == 200
    assert len(lake.metadata.blocks()) == 20
    assert post(service.port, "logs", b"")[:2] == (200, b"")
    assert len(lake.metadata.blocks()) == 20


def test_records_without_a_time_lie_where_they_arrived(lake: Lake, service: RunningIngest) -> None:
    before = lake.clock()
    for _ in range(2):
        assert post(service.port, "logs", logs("x", time=0).SerializeToString())[0] == 200
    (block,) = lake.metadata.blocks()
    assert before <= block.begin_time == block.end_time <= lake.clock()
    process = lake.metadata.processes([block.process_id])[block.process_id]
    assert process.start_time == block.begin_time


def test_huge_times_and_texts_are_stored(lake: Lake, service: RunningIngest) -> None:
    of = resource(service__name="n" * 1000 + "\0", host__name="\0", process__creation__time="9999-12-31T00:00:00Z")
    assert post(service.port, "logs", logs("x", of=of, time=2**64 - 1).SerializeToString())[0] == 200
    (block,) = lake.metadata.blocks()
    process = lake.metadata.processes([block.process_id])[block.process_id]
    assert block.end_time == process.start_time == 2**63 - 1
    assert process.exe == "n" * 255


@pytest.mark.parametrize(
    ("headers", "body", "answer"),
    [
        (PROTOBUF, b"\x0a\xff", (400, 3, "ExportLogsServiceRequest: ")),
        (PROTOBUF, b"\x0a\x02\x1a\x00\xff", (400, 3, "ExportLogsServiceRequest: ")),
        (PROTOBUF, b"\x0a\x03\x1a\x01\xff", (400, 3, "resourceLogs: schemaUrl: text is not UTF-8")),
        (JSON, b"", (400, 3, "no object")),
        (JSON, b"\xff", (400, 3, "json: not UTF-8")),
        (JSON, b'{"resourceLogs": 1}', (400, 3, "resourceLogs: json: no array")),
        (GZIPPED, b"no gzip", (400, 3, "gzip: ")),
        (GZIPPED, b"", (400, 3, "gzip: the body ends early")),
        (
            PROTOBUF | {"content-encoding": "gzip"},
            gzip.compress(b"", mtime=0)[:-4],
            (400, 3, "gzip: the body ends early"),
        ),
        (GZIPPED, gzip.compress(b"", mtime=0) + b"x", (400, 3, "gzip: bytes after")),
        (
            PROTOBUF | {"content-encoding": "gzip"},
            gzip.compress(bytes(3_000_001), mtime=0),
            (413, 8, "after decompression"),
        ),
        (PROTOBUF | {"content-encoding": "br"}, b"", (415, 3, "content encoding")),
        (PROTOBUF, bytes(100_001), (413, 8, "longer than 100000 bytes")),
        ({"content-type": "text/plain"}, b"", (415, 3, "content type")),
        ({}, b"", (415, 3, "content type")),
    ],
)
def test_refusals(
    folder_service: RunningIngest, headers: dict[str, str], body: bytes, answer: tuple[int, int, str]
) -> None:
    status, told, fields = request(folder_service.port, "POST", "/ingestion/otlp/v1/logs", body, headers | ALLOWED)
    if headers is JSON:
        assert fields["content-type"] == "application/json"
        described = json.loads(told)
        assert set(described) == {"code", "message"}
        code, text = described["code"], described["message"]
    else:
        assert fields["content-type"] == "application/x-protobuf"
        code, text = status_of(told)
    assert (status, code) == answer[:2]
    assert answer[2] in text


def test_who_may_not_send(folder_lake: Lake, folder_service: RunningIngest) -> None:
    stored = folder_lake.metadata.blocks()
    body = logs("secret").SerializeToString()
    for headers in ({}, {"authorization": "Bearer bad key"}, {"authorization": "good key"}):
        status, told, fields = post(folder_service.port, "logs", body, **headers)
        assert (status, status_of(told)) == (401, (16, "Invalid token"))
        assert fields["www-authenticate"] == "Bearer"
    status, told, fields = request(folder_service.port, "GET", "/ingestion/otlp/v1/logs", headers=PROTOBUF)
    assert (status, status_of(told)[0], fields["allow"]) == (405, 12, "POST")
    assert request(folder_service.port, "POST", "/ingestion/otlp/v1/profiles", body, ALLOWED)[0] == 404
    assert folder_lake.metadata.blocks() == stored
    assert post(folder_service.port, "logs", body, **ALLOWED)[0] == 200
    assert len(folder_lake.metadata.blocks()) == len(stored) + 1


def test_long_bodies_arrive_whatever_their_form(folder_lake: Lake, folder_service: RunningIngest) -> None:
    """More than is read in one go, and more than is inflated in one go."""
    for size, headers in (
        (90_000, {}),
        (900_000, {"content_encoding": "gzip"}),
        (2_900_000, {"content_encoding": "gzip"}),
    ):
        message = logs("x" * size)
        body = message.SerializeToString()
        sent = gzip.compress(body) if headers else body
        assert post(folder_service.port, "logs", sent, **headers, **ALLOWED)[0] == 200
        row = folder_lake.metadata.block(block_id_of(message.resource_logs[0].SerializeToString()))
        assert row is not None
        assert folder_lake.read_payload(row).endswith(message.resource_logs[0].SerializeToString())


class FailingSink:
    advised_lanes = 1

    def __init__(self, error: Exception) -> None:
        self._error = error

    def commit(self, batch: Batch) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "answer", "retry_after"), [(SinkUnavailable(), (503, 14), "30"), (RuntimeError(), (500, 13), None)]
)
def test_trouble_with_storage(error: Exception, answer: tuple[int, int], retry_after: str | None) -> None:
    with running_ingest(FailingSink(error)) as server:
        status, told, headers = post(server.port, "logs", logs("x").SerializeToString())
        assert (status, status_of(told)[0]) == answer
        assert headers.get("retry-after") == retry_after


def test_a_full_queue_is_told_as_passing(lake: Lake) -> None:
    held, released = threading.Event(), threading.Event()

    class Held:
        advised_lanes = 1

        def commit(self, batch: Batch) -> None:
            held.set()
            released.wait(30)
            lake.commit(batch)

    with running_ingest(Held(), IngestSettings(port=0, queue_rows=1)) as server:
        first = threading.Thread(target=post, args=(server.port, "logs", logs("first").SerializeToString()))
        first.start()
        assert held.wait(30)
        status, told, headers = post(server.port, "logs", logs("second").SerializeToString())
        assert (status, status_of(told)) == (503, (14, "the queue is full"))
        assert headers["retry-after"] == "1"
        released.set()
        first.join()
    assert len(lake.metadata.blocks()) == 1


def bomb(size: int) -> bytes:
    """Empty records, two bytes each, `size` bytes in all, as a gzip body."""
    inner = b"\x12\x00" * (size // 2)
    for tag in (b"\x12", b"\x0a"):
        inner = tag + varint(len(inner)) + inner
    return gzip.compress(inner, 1)


def test_hostile_bodies_beside_good_traffic(folder_lake: Lake, folder_service: RunningIngest) -> None:
    """Cut, flipped and endless requests of the three kinds, in both encodings, from several senders at once."""
    port = folder_service.port
    before = len(folder_lake.metadata.blocks())
    answers: list[tuple[int, bytes]] = []
    good_answers: list[int] = []
    template = logs("one", "two", of=resource(service__name="victim", process__pid=7))

    def hostile(seed: int) -> None:
        random = Random(seed)
        for index in range(60):
            is_json = index % 3 == 0
            body = bytearray(as_json(template) if is_json else template.SerializeToString())
            for _ in range(random.randint(1, 5)):
                body[random.randrange(len(body))] ^= 1 << random.randrange(8)
            if index % 2:
                del body[random.randrange(len(body)) :]
            headers = (JSON if is_json else PROTOBUF) | ALLOWED
            sent = bytes(body)
            if index % 5 == 0:
                headers = headers | {"content-encoding": "gzip"}
                sent = zlib.compress(sent) if index % 10 else gzip.compress(sent)[: random.randrange(5, 40)]
            if index == 30:
                sent, headers = bomb(2_900_000), PROTOBUF | ALLOWED | {"content-encoding": "gzip"}
            signal = ("logs", "metrics", "traces")[index % 3 if random.random() < 0.5 else 0]
            status, told, _ = request(port, "POST", f"/ingestion/otlp/v1/{signal}", sent, headers)
            answers.append((status, told))

    def good(seed: int) -> None:
        for index in range(40):
            body = logs(f"good {seed} {index}").SerializeToString()
            good_answers.append(post(port, "logs", body, **ALLOWED)[0])

    threads = [threading.Thread(target=each, args=(seed,)) for seed, each in enumerate([hostile, good, hostile, good])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good_answers == [200] * 80
    assert {status for status, _ in answers} == {200, 400}
    for status, told in answers:
        if status == 400:
            code = json.loads(told)["code"] if told.startswith(b"{") else status_of(told)[0]
            assert code == 3
    stored = {bytes(folder_lake.read_payload(row)[-30:]) for row in folder_lake.metadata.blocks()}
    for seed, index in itertools.product((1, 3), range(40)):
        assert any(f"good {seed} {index}".encode() in each for each in stored)
    assert len(folder_lake.metadata.blocks()) >= before + 80
