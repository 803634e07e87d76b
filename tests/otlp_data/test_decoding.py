"""The native reading of OTLP against the official messages: cutting requests, JSON, rows of the three views, values of
`parse_block`, and bytes that are broken."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import cbor2
import pyarrow as pa
import pytest
from e2e.answers import properties_of
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from otlp_data import making, reference
from otlp_data.blocks import BLOCK_BEGIN, source
from otlp_data.making import varint

from micromegas._engine import (
    BlockEvents,
    LogEntriesBuilder,
    MeasuresBuilder,
    OtelSpansBuilder,
    jsonb_format_json,
)
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.otel_spans import OTEL_SPANS
from micromegas.wire import WireError
from micromegas.wire.otlp import Signal, decode_otlp

REQUESTS = {
    "logs": (making.LOG_REQUESTS, ExportLogsServiceRequest, "resource_logs"),
    "metrics": (making.METRIC_REQUESTS, ExportMetricsServiceRequest, "resource_metrics"),
    "traces": (making.TRACE_REQUESTS, ExportTraceServiceRequest, "resource_spans"),
}
SIGNALS = list(REQUESTS)
MIB = 1024 * 1024


def resources_of(signal: str, request: Message) -> list[Any]:
    return list(getattr(request, REQUESTS[signal][2]))


def times(column: pa.ChunkedArray) -> list[int]:
    return list(column.cast(pa.int64()).to_pylist())


def same(value: Any) -> Any:
    """A value that equals its like: all NaN are one, the two zeros are not."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, dict):
        return frozenset((key, same(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(same(each) for each in value)
    return value


def counted(rows: Iterable[Any]) -> Counter[Any]:
    return Counter(same(row) for row in rows)


def json_values(column: pa.ChunkedArray) -> list[Any]:
    shown = pa.array(jsonb_format_json(column.combine_chunks()))
    return [json.loads(each) for each in shown.to_pylist()]


def log_rows(table: pa.Table) -> Iterable[Any]:
    columns = [table[name].to_pylist() for name in ("target", "level", "msg")]
    return zip(times(table["time"]), *columns, map(properties_of, table["properties"].to_pylist()), strict=True)


def measure_rows(table: pa.Table) -> Iterable[Any]:
    columns = [table[name].to_pylist() for name in ("target", "name", "unit", "value")]
    return zip(times(table["time"]), *columns, map(properties_of, table["properties"].to_pylist()), strict=True)


def span_rows(table: pa.Table) -> Iterable[Any]:
    return zip(
        *(table[name].to_pylist() for name in ("trace_id", "span_id", "parent_span_id")),
        *(times(table[name]) for name in ("start_time", "end_time")),
        *(table[name].to_pylist() for name in ("duration", "name", "kind", "status", "status_message")),
        map(properties_of, table["properties"].to_pylist()),
        *(json_values(table[name]) for name in ("events", "links")),
        strict=True,
    )


VIEWS: dict[str, tuple[Any, Any, Callable[[pa.Table], Iterable[Any]]]] = {
    "logs": (LogEntriesBuilder, LOG_ENTRIES, log_rows),
    "metrics": (MeasuresBuilder, MEASURES, measure_rows),
    "traces": (OtelSpansBuilder, OTEL_SPANS, span_rows),
}


def expected_rows(signal: str, resource: Any) -> Iterable[Any]:
    if signal == "logs":
        return reference.log_rows(resource, BLOCK_BEGIN)
    if signal == "metrics":
        return reference.measure_rows(resource)
    return reference.span_rows(resource, BLOCK_BEGIN)


def built(signal: str, *messages: bytes) -> tuple[pa.Table, list[list[str]]]:
    """The rows of blocks, and the problems of each."""
    make, view_set, _ = VIEWS[signal]
    builder = make()
    problems = [builder.append(source(signal, message)) for message in messages]
    table = pa.Table.from_batches([pa.record_batch(builder.take())])
    assert table.schema.equals(view_set.schema)
    table.validate(full=True)
    return table, problems


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_requests_are_cut_into_their_resources(signal: Signal, data: st.DataObject) -> None:
    request = data.draw(REQUESTS[signal][0])
    resources = decode_otlp(signal, request.SerializeToString(), is_json=False, max_bytes=MIB)
    kept = [each for each in resources_of(signal, request) if record_count(signal, each)]
    assert len(resources) == len(kept)
    for ours, message in zip(resources, kept, strict=True):
        assert bytes(ours.message) == message.SerializeToString()
        assert cbor2.loads(ours.payload) == {"dependencies": b"", "objects": bytes(ours.message)}
        assert dict(ours.attributes) == reference.texts(message.resource.attributes)
        assert ours.nb_objects == record_count(signal, message)
        assert ours.times == time_bounds(signal, message)


def records_of(signal: str, resource: Any) -> Iterable[Any]:
    if signal == "logs":
        return [record for group in resource.scope_logs for record in group.log_records]
    if signal == "traces":
        return [span for group in resource.scope_spans for span in group.spans]
    return [
        point
        for group in resource.scope_metrics
        for metric in group.metrics
        if (kind := metric.WhichOneof("data")) is not None
        for point in getattr(metric, kind).data_points
    ]


def record_count(signal: str, resource: Any) -> int:
    return sum(4 if type(each).__name__ == "SummaryDataPoint" else 1 for each in records_of(signal, resource))


def time_bounds(signal: str, resource: Any) -> tuple[int, int] | None:
    found: list[int] = []
    for record in records_of(signal, resource):
        if signal == "logs":
            told = [record.time_unix_nano or record.observed_time_unix_nano]
        elif signal == "traces":
            told = [record.start_time_unix_nano, record.end_time_unix_nano]
        else:
            told = [record.time_unix_nano]
        found += [time for each in told if (time := reference.event_time(each)) is not None]
    return (min(found), max(found)) if found else None


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_json_becomes_the_same_bytes(signal: Signal, data: st.DataObject) -> None:
    drawn = data.draw(REQUESTS[signal][0])
    # JSON has one NaN, doubles have many
    request = json_format.ParseDict(json_format.MessageToDict(drawn), type(drawn)())
    plain = decode_otlp(signal, request.SerializeToString(), is_json=False, max_bytes=MIB)
    text = reference.as_json(request)
    assert decode_otlp(signal, text, is_json=True, max_bytes=MIB) == plain
    # members may stand in any order, with things between that nobody knows, and may be null
    shuffled = json.dumps(shuffle(json.loads(text), data.draw(st.randoms(use_true_random=False))))
    assert decode_otlp(signal, shuffled.encode(), is_json=True, max_bytes=MIB) == plain


def shuffle(value: Any, random: Random) -> Any:
    if isinstance(value, list):
        return [shuffle(each, random) for each in value]
    if not isinstance(value, dict):
        return value
    members = [(key, shuffle(each, random)) for key, each in value.items()]
    members.append(("someday", random.choice([1, -1.5, "x", None, True, [1, {"a": []}], {"b": {"c": "]}"}}])))
    random.shuffle(members)
    return dict(members)


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_rows_are_those_of_the_official_messages(signal: str, data: st.DataObject) -> None:
    request = data.draw(REQUESTS[signal][0])
    resources = resources_of(signal, request)
    table, problems = built(signal, *(each.SerializeToString() for each in resources))
    rows = VIEWS[signal][2](table)
    assert counted(rows) == counted(row for each in resources for row in expected_rows(signal, each))
    for message, told in zip(resources, problems, strict=True):
        assert bool(told) == bool(left_out(signal, message))


def left_out(signal: str, resource: Any) -> int:
    """Records that can't be rows, and must be told of."""
    count = 0
    for record in records_of(signal, resource):
        if signal == "traces":
            count += len(record.trace_id) != 16 or len(record.span_id) != 8
        elif signal == "metrics" and not record.flags & reference.NO_RECORDED_VALUE:
            is_number = type(record).__name__ == "NumberDataPoint"
            count += not record.time_unix_nano or (is_number and record.WhichOneof("value") is None)
    return count


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_values_are_those_of_the_official_messages(signal: str, data: st.DataObject) -> None:
    request = data.draw(REQUESTS[signal][0])
    for resource in resources_of(signal, request):
        events = BlockEvents(
            b"\x80", b"\x80", source(signal, resource.SerializeToString()).payload, f"otlp/v1/{signal}"
        )
        values: list[Any] = []
        # in steps of two, so that reading goes on where it ended
        while (batch := pa.record_batch(events.read(2))).num_rows:
            assert batch["object_index"].to_pylist() == list(range(len(values), len(values) + batch.num_rows))
            values += json_values(pa.chunked_array([batch["value"]]))
        records = list(records_of(signal, resource))
        assert len(values) == len(records)
        for value, record in zip(values, records, strict=True):
            assert value.pop("__type") == type(record).__name__
            scope, metric = value.pop("scope"), value.pop("metric", None)
            assert (metric is None) == (signal != "metrics")
            assert same(value) == same(reference.message_tree(record))
            assert isinstance(scope, dict)


def nested(depth: int) -> AnyValue:
    value = AnyValue(string_value="deep")
    for _ in range(depth):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    return value


def log_request(*records: LogRecord) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])


def test_deep_values_are_read_as_deep_as_protobuf_reads_them() -> None:
    request = log_request(LogRecord(body=nested(40)))
    for body, is_json in ((request.SerializeToString(), False), (reference.as_json(request), True)):
        (resource,) = decode_otlp("logs", body, is_json=is_json, max_bytes=MIB)
        table, problems = built("logs", bytes(resource.message))
        assert problems == [[]]
        assert table["msg"].to_pylist() == ["[" * 40 + '"deep"' + "]" * 40]


@pytest.mark.parametrize("depth", [200, 5000, 20_000])
def test_deeper_ones_are_refused(depth: int) -> None:
    message = AnyValue(string_value="deep").SerializeToString()
    for _ in range(depth):
        for tag in (b"\x0a", b"\x2a"):
            message = tag + varint(len(message)) + message
    record = b"\x2a" + varint(len(message)) + message
    scope = b"\x12" + varint(len(record)) + record
    resource = b"\x12" + varint(len(scope)) + scope
    with pytest.raises(WireError, match="deeper than"):
        decode_otlp("logs", b"\x0a" + varint(len(resource)) + resource, is_json=False, max_bytes=MIB)
    # a stored block may hold anything
    table, problems = built("logs", resource)
    assert table.num_rows == 0
    assert "deeper than" in problems[0][0]
    text = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + '{"arrayValue":{"values":[' * depth
    with pytest.raises(WireError, match="too deep"):
        decode_otlp("logs", text.encode(), is_json=True, max_bytes=MIB)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no object"),
        ("[]", "no object"),
        ("{", "no string"),
        ("{}x", "text after"),
        ('{"resourceLogs":{}}', "no array"),
        ('{"resourceLogs":[1]}', "no object"),
        ('{"resourceLogs":[null]}', "no object"),
        ('{"resourceLogs":[],"resource_logs":[]}', "given twice"),
        ('{"resourceLogs":[{"schemaUrl":1}]}', "resourceLogs: schemaUrl: .*no string"),
        ('{"resourceLogs":[{"schemaUrl":"\\ud800"}]}', "surrogate"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"xyz"}]}]}]}', "hexadecimal"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"-1"}]}]}]}', "integer that fits"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"18446744073709551616"}]}]}]}', "fits"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":1.5}]}]}]}', "integer that fits"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"LOUD"}]}]}]}', "unknown name"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"bytesValue":"*"}}]}]}]}', "base64"),
        ('{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"boolValue":1}}]}]}]}', "true nor false"),
    ],
)
def test_json_that_is_no_request(text: str, fault: str) -> None:
    with pytest.raises(WireError, match=fault):
        decode_otlp("logs", text.encode(), is_json=True, max_bytes=MIB)


def test_json_may_spell_names_and_enumerations_as_the_proto_files_do() -> None:
    text = (
        '{"resource_logs":[{"scope_logs":[{"log_records":[{"time_unix_nano":"5","severity_number":'
        '"SEVERITY_NUMBER_WARN","trace_id":"0102030405060708090A0B0C0D0E0F10","body":null}]}]}]}'
    )
    record = LogRecord(time_unix_nano=5, severity_number=13, trace_id=bytes(range(1, 17)))
    expected = decode_otlp("logs", log_request(record).SerializeToString(), is_json=False, max_bytes=MIB)
    assert decode_otlp("logs", text.encode(), is_json=True, max_bytes=MIB) == expected


def test_json_may_not_become_longer_than_the_limit() -> None:
    points = ",".join("0" for _ in range(100_000))
    text = (
        '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":['
        f"{points}]}}]}}}}]}}]}}]}}"
    )
    decode_otlp("metrics", text.encode(), is_json=True, max_bytes=MIB)
    with pytest.raises(WireError, match="more than 500000 bytes"):
        decode_otlp("metrics", text.encode(), is_json=True, max_bytes=500_000)


def test_two_bytes_a_record_are_too_many_records() -> None:
    scope = b"\x12\x00" * 2_000_001
    resource = b"\x12" + varint(len(scope)) + scope
    request = b"\x0a" + varint(len(resource)) + resource
    with pytest.raises(WireError, match="more than 2000000 records"):
        decode_otlp("logs", request, is_json=False, max_bytes=MIB)
    resources = b"\x0a\x06\x12\x04\x12\x02\x10\x01" * 10_001
    with pytest.raises(WireError, match="more than 10000 resources"):
        decode_otlp("logs", resources, is_json=False, max_bytes=MIB)


def test_a_long_scope_is_not_repeated_without_bound() -> None:
    """A megabyte that a thousand records share would be a gigabyte of properties."""
    scope = ScopeLogs(log_records=[LogRecord(attributes=[KeyValue(key=str(index))]) for index in range(1000)])
    scope.scope.attributes.append(KeyValue(key="long", value=AnyValue(string_value="x" * 1_000_000)))
    table, problems = built("logs", ResourceLogs(scope_logs=[scope]).SerializeToString())
    assert 50 < table.num_rows < 200
    assert "values exceed" in problems[0][0]


def test_a_bad_record_leaves_its_neighbours_alone() -> None:
    good = [Span(trace_id=bytes([index]) * 16, span_id=bytes([index]) * 8, name=str(index)) for index in range(4)]
    scope = ScopeSpans(spans=good).SerializeToString()
    bad = b"\x12\x03\x2a\x01\xff"  # a name that is no text
    unreadable_scope = b"\x0a\x03\x0a\x01\xff" + scope
    message = b"".join(b"\x12" + varint(len(each)) + each for each in (bad + scope + bad, unreadable_scope, scope))
    table, problems = built("traces", message, ResourceSpans(scope_spans=[ScopeSpans(spans=good)]).SerializeToString())
    assert table["name"].to_pylist() == ["0", "1", "2", "3"] * 3
    assert len(problems[0]) == 7  # the two spans, the scope, its four spans
    assert problems[1] == []


def mutations(content: bytes, random: Random) -> bytes:
    """Cut, flipped, doubled or with bytes put in."""
    made = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 8])):
        at = random.randrange(len(made) + 1)
        match random.randrange(5):
            case 0:
                del made[at:]
            case 1 if at < len(made):
                made[at] ^= 1 << random.randrange(8)
            case 2:
                made[at:at] = random.randbytes(random.randrange(1, 6))
            case 3:
                del made[at : at + random.randrange(1, 6)]
            case _:
                made[at:at] = made[at : at + 20]
    return bytes(made)


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_broken_bytes_never_break_the_reader(signal: Signal, data: st.DataObject) -> None:
    request = data.draw(REQUESTS[signal][0])
    random = data.draw(st.randoms(use_true_random=False))
    for content, is_json in ((request.SerializeToString(), False), (reference.as_json(request), True)):
        broken = mutations(content, random)
        try:
            resources = decode_otlp(signal, broken, is_json=is_json, max_bytes=MIB)
        except WireError:
            continue
        for resource in resources:
            check_readable(signal, bytes(resource.message))
        if not is_json:
            REQUESTS[signal][1].FromString(broken)
    # a block that was never checked, between two good ones
    good = b"".join(resource.SerializeToString() for resource in resources_of(signal, request))
    table, problems = built(signal, good, mutations(good, random), good)
    own, own_problems = built(signal, good)
    counts = Counter(table["block_id"].to_pylist())
    assert [problems[0], problems[2]] == [renamed(own_problems[0], each) for each in (problems[0], problems[2])]
    assert list(counts.values()).count(own.num_rows) >= (2 if own.num_rows else 0)


def renamed(problems: list[str], like: list[str]) -> list[str]:
    """The problems of a block as those of another block: its ids in the place of its own."""
    return [theirs[: theirs.index(":")] + each[each.index(":") :] for each, theirs in zip(problems, like, strict=True)]


def check_readable(signal: str, message: bytes) -> None:
    """What was taken in is read, whatever it says."""
    table, _ = built(signal, message)
    expected: Any = None
    try:
        kind = {"logs": ResourceLogs, "traces": ResourceSpans}.get(signal)
        expected = None if kind is None else kind.FromString(message)
    except DecodeError:
        pytest.fail(f"taken in, but no message: {message!r}")
    if expected is not None:
        assert table.num_rows <= len(list(records_of(signal, expected)))
