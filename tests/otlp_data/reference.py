"""What OTLP messages mean as rows, told from the messages of the official package: an independent decoder."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

Properties = frozenset[tuple[str, str]]
INT64_MAX = 2**63 - 1
NO_RECORDED_VALUE = 1
KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
STATUSES = ["UNSET", "OK", "ERROR"]


def number_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    digits, exponent, power = repr(value).partition("e")
    return digits + (f"e{int(power)}" if exponent else "")


def json_text(value: AnyValue) -> str:
    """The JSON text of a value within another."""
    match value.WhichOneof("value"):
        case "string_value":
            return json.dumps(value.string_value, ensure_ascii=False)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return number_text(value.double_value)
        case "bytes_value":
            return f'"{base64.b64encode(value.bytes_value).decode()}"'
        case "array_value":
            return f"[{','.join(json_text(each) for each in value.array_value.values)}]"
        case "kvlist_value":
            pairs = (f"{json.dumps(each.key, ensure_ascii=False)}:{json_text(each.value)}" for each in kvlist(value))
            return f"{{{','.join(pairs)}}}"
    return "null"


def kvlist(value: AnyValue) -> Iterable[KeyValue]:
    return value.kvlist_value.values


def text_of(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case None:
            return ""
        case "string_value":
            return value.string_value
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return json_text(value)


def texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: text_of(each.value) for each in attributes}


def scope_properties(scope: InstrumentationScope, *schema_urls: str) -> dict[str, str]:
    told = {f"otel.scope.attr.{key}": value for key, value in texts(scope.attributes).items()}
    schema_url = next((url for url in schema_urls if url), "")
    facts = {"otel.scope.name": scope.name, "otel.scope.version": scope.version, "otel.schema_url": schema_url}
    return told | {key: value for key, value in facts.items() if value}


def event_time(nanoseconds: int) -> int | None:
    return min(nanoseconds, INT64_MAX) or None


def level_of(severity: int) -> int:
    return 6 - (severity - 1) // 4 if 1 <= severity <= 24 else 4


def log_rows(resource: ResourceLogs, default_time: int) -> Iterator[tuple[Any, ...]]:
    """(time, target, level, msg, properties)."""
    for group in resource.scope_logs:
        shared = scope_properties(group.scope, group.schema_url, resource.schema_url)
        for record in group.log_records:
            own = texts(record.attributes)
            if len(record.trace_id) == 16:
                own["otel.trace_id"] = record.trace_id.hex()
            if len(record.span_id) == 8:
                own["otel.span_id"] = record.span_id.hex()
            if record.severity_text:
                own["otel.severity_text"] = record.severity_text
            if record.event_name:
                own["otel.event_name"] = record.event_name
            time = event_time(record.time_unix_nano) or event_time(record.observed_time_unix_nano) or default_time
            level = level_of(record.severity_number)
            yield time, group.scope.name, level, text_of(record.body), frozenset((own | shared).items())


def measure_rows(resource: ResourceMetrics) -> Iterator[tuple[Any, ...]]:
    """(time, target, name, unit, value, properties)."""
    for group in resource.scope_metrics:
        scope = scope_properties(group.scope, group.schema_url, resource.schema_url)
        for metric in group.metrics:
            shared = scope | metric_properties(metric)
            for time, name, unit, value, own in point_rows(metric):
                yield time, group.scope.name, name, unit, value, frozenset((own | shared).items())


def metric_properties(metric: Metric) -> dict[str, str]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return {}
    told = {"otel.metric.kind": kind}
    if kind not in ("gauge", "summary"):
        temporality = getattr(metric, kind).aggregation_temporality
        told["otel.metric.aggregation_temporality"] = {1: "delta", 2: "cumulative"}.get(temporality, "unspecified")
    if kind == "sum":
        told["otel.metric.is_monotonic"] = str(metric.sum.is_monotonic).lower()
    return told


def point_rows(metric: Metric) -> Iterator[tuple[int, str, str, float, dict[str, str]]]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    for point in getattr(metric, kind).data_points:
        time, own = event_time(point.time_unix_nano), texts(point.attributes)
        if point.flags & NO_RECORDED_VALUE or time is None:
            continue
        if kind in ("gauge", "sum"):
            which = point.WhichOneof("value")
            if which is not None:
                yield time, metric.name, metric.unit, float(getattr(point, which)), own
            continue
        yield time, f"{metric.name}_count", "", float(point.count), own
        if kind == "summary":
            ends = {each.quantile: each.value for each in point.quantile_values}
            values = {"_sum": point.sum, "_min": ends.get(0.0), "_max": ends.get(1.0)}
        else:
            values = {f"_{name}": getattr(point, name) for name in ("sum", "min", "max") if point.HasField(name)}
        for suffix, value in values.items():
            if value is not None:
                yield time, metric.name + suffix, metric.unit, value, own


def span_rows(resource: ResourceSpans, default_time: int) -> Iterator[tuple[Any, ...]]:
    """(trace_id, span_id, parent_span_id, start, end, duration, name, kind, status, status_message, properties,
    events, links), the last two as JSON values."""
    for group in resource.scope_spans:
        shared = scope_properties(group.scope, group.schema_url, resource.schema_url)
        for span in group.spans:
            if len(span.trace_id) != 16 or len(span.span_id) != 8:
                continue
            start, end = event_time(span.start_time_unix_nano), event_time(span.end_time_unix_nano)
            start = start or end or default_time
            end = end or start
            own = texts(span.attributes)
            if span.trace_state:
                own["otel.trace_state"] = span.trace_state
            parent = span.parent_span_id
            yield (
                span.trace_id,
                span.span_id,
                parent if len(parent) == 8 and any(parent) else None,
                start,
                end,
                max(end - start, -(2**63)),
                span.name,
                KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
                STATUSES[span.status.code] if 0 <= span.status.code < len(STATUSES) else STATUSES[0],
                span.status.message or None,
                frozenset((own | shared).items()),
                [
                    {
                        "time": event_time(each.time_unix_nano) or 0,
                        "name": each.name,
                        "attributes": tree(each.attributes),
                    }
                    for each in span.events
                ],
                [
                    {
                        "trace_id": each.trace_id.hex(),
                        "span_id": each.span_id.hex(),
                        "attributes": tree(each.attributes),
                    }
                    for each in span.links
                ],
            )


def value_tree(value: AnyValue) -> Any:
    """A value as JSON has it, with types; bytes are told by their number."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [value_tree(each) for each in value.array_value.values]
    if which == "kvlist_value":
        return tree(kvlist(value))
    if which == "bytes_value":
        return f"{len(value.bytes_value)} bytes"
    return getattr(value, which)


def tree(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {each.key: value_tree(each.value) for each in attributes}


def message_tree(message: Message) -> dict[str, Any]:
    """Every field that a message has, by its name in JSON."""
    members: dict[str, Any] = {}
    for field, value in message.ListFields():
        items = list(value) if field.is_repeated else [value]
        if field.message_type is not None and field.message_type.name == "KeyValue":
            members[field.json_name] = tree(items)
            continue
        if field.message_type is not None and field.message_type.name == "AnyValue":
            made: list[Any] = [value_tree(each) for each in items]
        elif field.message_type is not None:
            made = [message_tree(each) for each in items]
        elif field.type == field.TYPE_BYTES:
            made = [each.hex() for each in items]
        else:
            made = items
        members[field.json_name] = made if field.is_repeated else made[0]
    return members


def as_json(request: Message) -> bytes:
    """A request in OTLP's JSON form: as protobuf has it, but ids in hexadecimal."""
    described = json_format.MessageToDict(request, use_integers_for_enums=True)
    return json.dumps(_with_hex_ids(described)).encode()


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_hex_ids(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: base64.b64decode(each).hex() if key in ("traceId", "spanId", "parentSpanId") else _with_hex_ids(each)
        for key, each in value.items()
    }
