"""From OpenTelemetry's own SDK over its own exporters to SQL answers, on both back ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from daemon.telemetry import HandClock, cover
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from otlp_data.reference import as_json
from query.asking import ask, column, one
from senders import START_TIME
from servers.ingest import RunningIngest, request, running_ingest

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.insert_clock import SECOND
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.otel_spans import OTEL_SPANS

JSON = {"content-type": "application/json"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "otlp_program.py"


@pytest.fixture
def service(lake: Lake) -> Iterator[RunningIngest]:
    with running_ingest(lake) as server:
        yield server


@contextmanager
def opened_engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = QueryEngine(lake, QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0))
    yield opened
    opened.close()


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    with opened_engine(lake) as opened:
        yield opened


def endpoint(service: RunningIngest, signal: str) -> str:
    return f"http://127.0.0.1:{service.port}/ingestion/otlp/v1/{signal}"


def program(name: str) -> Resource:
    return Resource.create({"service.name": name, "service.namespace": "shop", "host.name": "box"})


def rows(engine: QueryEngine, sql: str) -> list[dict[str, Any]]:
    table = ask(engine, sql)
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*map_columns(table), strict=True)]


def map_columns(table: pa.Table) -> list[list[Any]]:
    return [column(table, position) for position in range(table.num_columns)]


def test_traces(service: RunningIngest, engine: QueryEngine) -> None:
    providers = {name: TracerProvider(resource=program(name)) for name in ("front", "back")}
    for provider, compression in zip(providers.values(), (Compression.NoCompression, Compression.Gzip), strict=True):
        exporter = OTLPSpanExporter(endpoint(service, "traces"), compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    front = providers["front"].get_tracer("web", "1.2", attributes={"lib": "x"})
    back = providers["back"].get_tracer("db")
    with front.start_as_current_span("GET /cart", kind=SpanKind.SERVER, attributes={"items": 3, "ok": True}) as outer:
        outer.add_event("cached", {"hit": False})
        link = Link(outer.get_span_context(), {"why": "because"})
        with back.start_as_current_span("SELECT", kind=SpanKind.CLIENT, links=[link]) as inner:
            inner.set_status(Status(StatusCode.ERROR, "no table"))
    for provider in providers.values():
        provider.shutdown()

    trace_id = f"{outer.get_span_context().trace_id:032x}"
    outer_id, inner_id = (f"{span.get_span_context().span_id:016x}" for span in (outer, inner))
    # the whole trace, across processes, fresh
    answer = rows(
        engine,
        "SELECT encode(span_id, 'hex') AS id, encode(parent_span_id, 'hex') AS parent, exe, computer, name, kind, "
        "status, status_message, start_time, end_time, duration, jsonb_format_json(properties) AS properties, "
        "jsonb_format_json(events) AS events, jsonb_format_json(links) AS links, "
        "property_get(process_properties, 'otel.resource.service.name') AS service "
        f"FROM otel_spans WHERE trace_id = decode('{trace_id}', 'hex') ORDER BY start_time",
    )
    assert [(each["id"], each["parent"]) for each in answer] == [(outer_id, None), (inner_id, outer_id)]
    assert [(each["exe"], each["computer"], each["service"]) for each in answer] == [
        ("shop/front", "box", "front"),
        ("shop/back", "box", "back"),
    ]
    assert [(each["name"], each["kind"], each["status"], each["status_message"]) for each in answer] == [
        ("GET /cart", "SERVER", "UNSET", None),
        ("SELECT", "CLIENT", "ERROR", "no table"),
    ]
    for each, span in zip(answer, (outer, inner), strict=True):
        assert (each["start_time"], each["end_time"]) == (span.start_time, span.end_time)  # type: ignore[attr-defined]
        assert each["duration"] == each["end_time"] - each["start_time"]
    assert answer[0]["properties"] == (
        '{"items":"3","ok":"true","otel.scope.attr.lib":"x","otel.scope.name":"web","otel.scope.version":"1.2"}'
    )
    time = outer.events[0].timestamp  # type: ignore[attr-defined]
    assert answer[0]["events"] == f'[{{"attributes":{{"hit":false}},"name":"cached","time":{time}}}]'
    assert answer[1]["links"] == (
        f'[{{"attributes":{{"why":"because"}},"span_id":"{outer_id}","trace_id":"{trace_id}"}}]'
    )
    assert (answer[0]["links"], answer[1]["events"]) == ("[]", "[]")

    # shape 40 of the specification, as written
    process_id = one(ask(engine, "SELECT process_id FROM processes WHERE exe = 'shop/back'"))
    answer = rows(
        engine,
        f"SELECT encode(span_id,'hex'), name, duration FROM view_instance('otel_spans','{process_id}') "
        f"WHERE trace_id = decode('{trace_id}','hex')",
    )
    assert [list(each.values())[:2] for each in answer] == [[inner_id, "SELECT"]]


@pytest.mark.filterwarnings("ignore:.LoggingHandler.:DeprecationWarning")
def test_logs(service: RunningIngest, engine: QueryEngine) -> None:
    provider = LoggerProvider(resource=program("worker"))
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint(service, "logs"))))
    logger = logging.getLogger("otlp.test")
    logger.addHandler(handler := LoggingHandler(logger_provider=provider))
    tracer = TracerProvider().get_tracer("t")
    try:
        with tracer.start_as_current_span("s") as span:
            logger.error("broke %s", "it", extra={"user": "ann"})
        logger.critical({"a": [1, None, "ü"]})
    finally:
        logger.removeHandler(handler)
        provider.shutdown()
    answer = rows(
        engine,
        "SELECT target, level, msg, exe, property_get(properties, 'user') AS who, "
        "property_get(properties, 'otel.trace_id') AS trace, property_get(properties, 'otel.severity_text') AS text "
        "FROM log_entries ORDER BY time",
    )
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert [list(each.values()) for each in answer] == [
        ["otlp.test", 2, "broke it", "shop/worker", "ann", trace_id, "ERROR"],
        ["otlp.test", 1, '{"a":[1,null,"ü"]}', "shop/worker", None, None, "FATAL"],
    ]


def test_metrics(service: RunningIngest, engine: QueryEngine) -> None:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint(service, "metrics")), float("inf"))
    view = View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], resource=program("worker"), views=[view])
    meter = provider.get_meter("game")
    meter.create_counter("hits", "1").add(3, {"door": "north"})
    meter.create_up_down_counter("players").add(-2)
    meter.create_gauge("temperature", "Cel").set(36.6)
    for name in ("explicit", "exponential"):
        histogram = meter.create_histogram(name, "ms")
        for value in (1.0, 2.0, 4.5):
            histogram.record(value)
    provider.force_flush()
    provider.shutdown()
    answer = rows(
        engine,
        "SELECT name, unit, value, target, property_get(properties, 'door') AS door, "
        "property_get(properties, 'otel.metric.kind') AS kind, "
        "property_get(properties, 'otel.metric.is_monotonic') AS monotonic, "
        "property_get(properties, 'otel.metric.aggregation_temporality') AS temporality FROM measures",
    )
    expected = {
        ("hits", "1", 3.0, "game", "north", "sum", "true", "cumulative"),
        ("players", "", -2.0, "game", None, "sum", "false", "cumulative"),
        ("temperature", "Cel", 36.6, "game", None, "gauge", None, None),
    }
    for name, kind in (("explicit", "histogram"), ("exponential", "exponential_histogram")):
        for suffix, unit, value in (("count", "", 3.0), ("sum", "ms", 7.5), ("min", "ms", 1.0), ("max", "ms", 4.5)):
            expected.add((f"{name}_{suffix}", unit, value, "game", None, kind, None, "cumulative"))
    assert {tuple(each.values()) for each in answer} == expected
    assert len(answer) == len(expected)

    # the buckets are not lost
    block_id = one(ask(engine, "SELECT block_id FROM blocks"))
    counts = ask(
        engine,
        "SELECT type_name, jsonb_format_json(jsonb_get(value, 'bucketCounts')) AS buckets "
        f"FROM parse_block('{block_id}') WHERE type_name = 'HistogramDataPoint'",
    )
    assert sum(map(int, one(counts.select(["buckets"])).strip("[]").split(","))) == 3


def test_the_example(service: RunningIngest, engine: QueryEngine) -> None:
    address = f"http://127.0.0.1:{service.port}/ingestion/otlp"
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_SERVICE_NAME": "shop"}
    subprocess.run([sys.executable, EXAMPLE], env=environment, check=True, timeout=60)
    answer = ask(engine, "SELECT exe, name FROM otel_spans ORDER BY start_time")
    assert answer.to_pylist() == [{"exe": "shop", "name": "checkout"}, {"exe": "shop", "name": "pay"}]
    assert one(ask(engine, "SELECT value FROM measures WHERE name = 'sold'")) == 3.0


def span_request(count: int, name: str) -> ExportTraceServiceRequest:
    of = ResourceMessage(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=name))])
    spans = [
        SpanMessage(
            trace_id=index.to_bytes(16, "big"),
            span_id=(index + 1).to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=START_TIME + 10 * index,
            end_time_unix_nano=START_TIME + 10 * index + 5,
        )
        for index in range(count)
    ]
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=of, scope_spans=[ScopeSpans(spans=spans)])])


@pytest.mark.parametrize("kept", [False, True], ids=["tail", "partition"])
@pytest.mark.parametrize("source", ["otel_spans", "view_instance('otel_spans', '{process}')"])
def test_spans_that_end_before_they_begin_are_found(lake_backend: LakeSettings, source: str, kept: bool) -> None:
    clock = HandClock()
    sent = span_request(1, "set back")
    [span] = sent.resource_spans[0].scope_spans[0].spans
    hour = 3600 * SECOND
    span.end_time_unix_nano = START_TIME - hour
    with Lake.open(lake_backend, clock) as lake, running_ingest(lake) as service, opened_engine(lake) as engine:
        assert request(service.port, "POST", "/ingestion/otlp/v1/traces", as_json(sent), JSON)[0] == 200
        clock.now += SECOND
        if kept:
            cover(lake, OTEL_SPANS, clock)
        table = source.format(process=one(ask(engine, "SELECT process_id FROM processes")))
        begin, end = (f"arrow_cast({time}, 'Timestamp(ns, \"+00:00\")')" for time in (START_TIME, START_TIME - hour))
        assert one(ask(engine, f"SELECT duration FROM {table}")) == -hour
        for condition in (f"start_time >= {begin}", f"end_time <= {end}", f"start_time = {begin} AND end_time = {end}"):
            assert one(ask(engine, f"SELECT name FROM {table} WHERE {condition}")) == "set back"
        assert (
            ask(engine, f"SELECT name FROM {table}", begin=START_TIME - 2 * hour, end=START_TIME + hour).num_rows == 1
        )


def test_the_global_view_is_kept_by_the_daemon(lake_backend: LakeSettings) -> None:
    clock = HandClock()
    path = "/ingestion/otlp/v1/traces"
    sql = f"SELECT exe, name FROM otel_spans WHERE trace_id = decode('{7:032x}', 'hex') ORDER BY exe"
    with Lake.open(lake_backend, clock) as lake, running_ingest(lake) as service, opened_engine(lake) as engine:

        def send(name: str) -> None:
            body = as_json(span_request(50, name))
            assert request(service.port, "POST", path, body, JSON)[0] == 200
            clock.now += SECOND

        send("a")
        send("b")
        fresh = ask(engine, sql)
        assert fresh.to_pylist() == [{"exe": "a", "name": "a"}, {"exe": "b", "name": "b"}]
        cover(lake, OTEL_SPANS, clock)
        partitions = ask(engine, "SELECT num_rows FROM list_partitions() WHERE view_set_name = 'otel_spans'")
        assert sum(column(partitions)) == 100
        assert ask(engine, sql).to_pylist() == fresh.to_pylist()
        # what comes later is found beside the partitions
        send("c")
        assert column(ask(engine, sql)) == ["a", "b", "c"]
        begin, end = (f"to_timestamp_nanos({START_TIME + moment})" for moment in (100, 115))
        within = f"SELECT count(*) FROM otel_spans WHERE start_time >= {begin} AND end_time <= {end}"
        assert one(ask(engine, within)) == 3 * 2
