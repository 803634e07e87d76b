"""OTLP requests made by hypothesis: every kind of value, missing fields, huge numbers, ids that are none, times of
0."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["", "é", "\0", '"\\\n', "👍"])
KEYS = TEXTS | st.sampled_from(["a", "b", "otel.trace_id", "otel.scope.name", "target", "level"])
INTS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
DOUBLES = st.floats() | st.sampled_from([0.0, -0.0, 1e16, 1e-5, 5e-324])
UINT64S = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
TIMES = st.sampled_from([0, 1, 1_700_000_000_000_000_000, 2**63, 2**64 - 1]) | st.integers(0, 2**62)
UINT32S = st.sampled_from([0, 1, 2**32 - 1])
TRACE_IDS = st.sampled_from([b"", b"short", bytes(16), b"t" * 17]) | st.binary(min_size=16, max_size=16)
SPAN_IDS = st.sampled_from([b"", b"short", bytes(8), b"s" * 9]) | st.binary(min_size=8, max_size=8)

SCALARS = st.one_of(
    st.just(AnyValue()),
    st.builds(AnyValue, string_value=TEXTS),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=INTS),
    st.builds(AnyValue, double_value=DOUBLES),
    st.builds(AnyValue, bytes_value=st.binary(max_size=7)),
)


def _containers(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    pairs = st.builds(KeyValue, key=KEYS, value=values)
    return st.one_of(
        st.builds(lambda items: AnyValue(array_value=ArrayValue(values=items)), st.lists(values, max_size=3)),
        st.builds(lambda items: AnyValue(kvlist_value=KeyValueList(values=items)), st.lists(pairs, max_size=3)),
    )


VALUES = st.recursive(SCALARS, _containers, max_leaves=5)
ATTRIBUTES = st.lists(st.builds(KeyValue, key=KEYS, value=VALUES) | st.builds(KeyValue, key=KEYS), max_size=3)
SCOPES = st.builds(InstrumentationScope, name=TEXTS, version=TEXTS, attributes=ATTRIBUTES)
RESOURCES = st.builds(Resource, attributes=ATTRIBUTES, dropped_attributes_count=UINT32S)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=3)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


LOG_RECORDS = maybe(
    time_unix_nano=TIMES,
    observed_time_unix_nano=TIMES,
    severity_number=st.integers(0, 24),
    severity_text=TEXTS,
    body=VALUES,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32S,
    flags=UINT32S,
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    event_name=TEXTS,
).map(lambda fields: LogRecord(**fields))
SCOPE_LOGS = maybe(scope=SCOPES, log_records=some(LOG_RECORDS), schema_url=TEXTS).map(lambda f: ScopeLogs(**f))
RESOURCE_LOGS = maybe(resource=RESOURCES, scope_logs=some(SCOPE_LOGS), schema_url=TEXTS).map(
    lambda fields: ResourceLogs(**fields)
)
LOG_REQUESTS = st.builds(ExportLogsServiceRequest, resource_logs=some(RESOURCE_LOGS))

POINT = {
    "attributes": ATTRIBUTES,
    "start_time_unix_nano": TIMES,
    "time_unix_nano": TIMES,
    "flags": st.sampled_from([0, 1, 2, 3]),
}
EXEMPLARS = some(
    maybe(filtered_attributes=ATTRIBUTES, time_unix_nano=TIMES, span_id=SPAN_IDS, trace_id=TRACE_IDS, as_int=INTS).map(
        lambda fields: Exemplar(**fields)
    )
)
NUMBER_POINTS = st.one_of(
    maybe(**POINT, as_double=DOUBLES, exemplars=EXEMPLARS), maybe(**POINT, as_int=INTS, exemplars=EXEMPLARS)
).map(lambda fields: NumberDataPoint(**fields))
EXTREMES = {"count": UINT64S, "sum": DOUBLES, "min": DOUBLES, "max": DOUBLES}
HISTOGRAM_POINTS = maybe(
    **POINT, **EXTREMES, bucket_counts=some(UINT64S), explicit_bounds=some(DOUBLES), exemplars=EXEMPLARS
).map(lambda fields: HistogramDataPoint(**fields))
BUCKETS = maybe(offset=st.integers(-(2**31), 2**31 - 1), bucket_counts=some(UINT64S)).map(
    lambda fields: ExponentialHistogramDataPoint.Buckets(**fields)
)
EXPONENTIAL_POINTS = maybe(
    **POINT,
    **EXTREMES,
    scale=st.integers(-(2**31), 2**31 - 1),
    zero_count=UINT64S,
    positive=BUCKETS,
    negative=BUCKETS,
    zero_threshold=DOUBLES,
).map(lambda fields: ExponentialHistogramDataPoint(**fields))
QUANTILES = st.builds(SummaryDataPoint.ValueAtQuantile, quantile=st.sampled_from([0.0, 0.5, 1.0]), value=DOUBLES)
SUMMARY_POINTS = maybe(**POINT, count=UINT64S, sum=DOUBLES, quantile_values=some(QUANTILES)).map(
    lambda fields: SummaryDataPoint(**fields)
)
TEMPORALITIES = st.integers(0, 2)
METRICS = st.tuples(
    maybe(name=TEXTS, description=TEXTS, unit=TEXTS, metadata=ATTRIBUTES),
    st.one_of(
        st.just({}),
        st.builds(lambda points: {"gauge": Gauge(data_points=points)}, some(NUMBER_POINTS)),
        st.builds(
            lambda points, temporality, monotonic: {
                "sum": Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=monotonic)
            },
            some(NUMBER_POINTS),
            TEMPORALITIES,
            st.booleans(),
        ),
        st.builds(
            lambda points, temporality: {
                "histogram": Histogram(data_points=points, aggregation_temporality=temporality)
            },
            some(HISTOGRAM_POINTS),
            TEMPORALITIES,
        ),
        st.builds(
            lambda points, temporality: {
                "exponential_histogram": ExponentialHistogram(data_points=points, aggregation_temporality=temporality)
            },
            some(EXPONENTIAL_POINTS),
            TEMPORALITIES,
        ),
        st.builds(lambda points: {"summary": Summary(data_points=points)}, some(SUMMARY_POINTS)),
    ),
).map(lambda parts: Metric(**parts[0], **parts[1]))
SCOPE_METRICS = maybe(scope=SCOPES, metrics=some(METRICS), schema_url=TEXTS).map(lambda f: ScopeMetrics(**f))
RESOURCE_METRICS = maybe(resource=RESOURCES, scope_metrics=some(SCOPE_METRICS), schema_url=TEXTS).map(
    lambda fields: ResourceMetrics(**fields)
)
METRIC_REQUESTS = st.builds(ExportMetricsServiceRequest, resource_metrics=some(RESOURCE_METRICS))

EVENTS = maybe(time_unix_nano=TIMES, name=TEXTS, attributes=ATTRIBUTES).map(lambda f: Span.Event(**f))
LINKS = maybe(trace_id=TRACE_IDS, span_id=SPAN_IDS, trace_state=TEXTS, attributes=ATTRIBUTES).map(
    lambda fields: Span.Link(**fields)
)
STATUSES = maybe(code=st.integers(0, 2), message=TEXTS).map(lambda fields: Status(**fields))
SPANS = maybe(
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    trace_state=TEXTS,
    parent_span_id=SPAN_IDS,
    flags=UINT32S,
    name=TEXTS,
    kind=st.integers(0, 5),
    start_time_unix_nano=TIMES,
    end_time_unix_nano=TIMES,
    attributes=ATTRIBUTES,
    events=some(EVENTS),
    links=some(LINKS),
    status=STATUSES,
).map(lambda fields: Span(**fields))
SCOPE_SPANS = maybe(scope=SCOPES, spans=some(SPANS), schema_url=TEXTS).map(lambda fields: ScopeSpans(**fields))
RESOURCE_SPANS = maybe(resource=RESOURCES, scope_spans=some(SCOPE_SPANS), schema_url=TEXTS).map(
    lambda fields: ResourceSpans(**fields)
)
TRACE_REQUESTS = st.builds(ExportTraceServiceRequest, resource_spans=some(RESOURCE_SPANS))


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
