"""Telemetry made by hand: a sender with packed layouts of its own, and every part of its bodies open to be spoiled."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import cbor2
import lz4.frame
from e2e.recordings import Request

FREQUENCY = 1_000_000_000
START_TIME = 1_800_000_000_000_000_000
START_TICKS = 5_000_000
UTF8 = 2
INFO = 4

Udt = dict[str, Any]


def member(name: str, type_name: str, offset: int, size: int = 8, *, is_reference: bool = False) -> dict[str, Any]:
    return {"name": name, "type_name": type_name, "offset": offset, "size": size, "is_reference": is_reference}


def reference(name: str, offset: int) -> dict[str, Any]:
    return member(name, "text", offset, is_reference=True)


def udt(name: str, size: int, *members: dict[str, Any]) -> Udt:
    return {"name": name, "size": size, "members": list(members), "is_reference": False}


STATIC_STRING = udt("StaticString", 0)
DEPENDENCIES: dict[str, list[Udt]] = {
    "log": [
        STATIC_STRING,
        udt(
            "LogMetadataRecord",
            32,
            member("id", "u64", 0),
            reference("fmt_str", 8),
            reference("target", 16),
            member("level", "u32", 24, 4),
            member("line", "u32", 28, 4),
        ),
        udt("PropertySetDependency", 0),
        udt("Property", 16, reference("name", 0), reference("value", 8)),
    ],
    "metrics": [
        STATIC_STRING,
        udt(
            "MetricMetadataDependency",
            32,
            member("id", "u64", 0),
            reference("name", 8),
            reference("unit", 16),
            reference("target", 24),
        ),
    ],
    "cpu": [
        STATIC_STRING,
        udt(
            "SpanRecord",
            36,
            member("id", "u64", 0),
            reference("name", 8),
            reference("target", 16),
            reference("file", 24),
            member("line", "u32", 32, 4),
        ),
    ],
}
OBJECTS: dict[str, list[Udt]] = {
    "log": [udt("LogStringEventV2", 0), udt("TaggedLogString", 0)],
    "metrics": [
        udt("FloatMetricEvent", 24, reference("desc", 0), member("value", "f64", 8), member("time", "i64", 16)),
        udt("IntegerMetricEvent", 24, reference("desc", 0), member("value", "u64", 8), member("time", "i64", 16)),
    ],
    "cpu": [
        udt("BeginThreadSpanEvent", 16, reference("thread_span_desc", 0), member("time", "i64", 8)),
        udt("EndThreadSpanEvent", 16, reference("thread_span_desc", 0), member("time", "i64", 8)),
    ],
}


def text_dependency(number: int, text: str | bytes) -> bytes:
    """A `StaticString` record."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<BIQ", 0, 8 + len(data), number) + data


def dynamic(type_index: int, body: bytes) -> bytes:
    """A record with a length prefix."""
    return struct.pack("<BI", type_index, len(body)) + body


def encoded_string(text: str | bytes, codec: int = UTF8) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<BI", codec, len(data)) + data


LOG_DEPENDENCIES = (
    text_dependency(1, "format {}") + text_dependency(2, "made::log") + struct.pack("<BQQQII", 1, 3, 1, 2, INFO, 12)
)
METRIC_DEPENDENCIES = (
    text_dependency(1, "made_metric")
    + text_dependency(2, "ms")
    + text_dependency(3, "made::metrics")
    + struct.pack("<BQQQQ", 1, 4, 1, 2, 3)
)
SPAN_DEPENDENCIES = (
    text_dependency(1, "work")
    + text_dependency(2, "made::cpu")
    + text_dependency(3, "made.py")
    + struct.pack("<BQQQQI", 1, 4, 1, 2, 3, 7)
)


def log_event(message: str | bytes, ticks: int) -> bytes:
    return dynamic(0, struct.pack("<Qq", 3, ticks) + encoded_string(message))


def tagged_log_event(message: str, ticks: int, property_set: int) -> bytes:
    return dynamic(1, struct.pack("<QQq", 3, property_set, ticks) + encoded_string(message))


def property_set(number: int, pairs: Iterable[tuple[int, int]]) -> bytes:
    """A `PropertySetDependency` record over ids of texts."""
    packed = [struct.pack("<QQ", name, value) for name, value in pairs]
    return dynamic(2, struct.pack("<QI", number, len(packed)) + b"".join(packed))


def frame(data: bytes) -> bytes:
    return lz4.frame.compress(data, block_linked=True)


def time_text(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09}+00:00"


def block_request(fields: dict[str, Any]) -> Request:
    return Request("/ingestion/insert_block", cbor2.dumps(fields))


@dataclass(slots=True)
class MadeStream:
    """A stream of a `MadeProcess`; each block follows the one before."""

    process_id: str
    stream_id: str
    tag: str
    random: Random
    nb_objects: int = 0
    now: int = 1000
    properties: dict[str, str] = field(default_factory=dict)

    def request(self, **changes: Any) -> Request:
        """Its announcement."""
        fields: dict[str, Any] = {
            "process_id": self.process_id,
            "stream_id": self.stream_id,
            "dependencies_metadata": DEPENDENCIES[self.tag],
            "objects_metadata": OBJECTS[self.tag],
            "tags": [self.tag],
            "properties": self.properties,
        }
        return Request("/ingestion/insert_stream", cbor2.dumps(fields | changes))

    def fields(self, dependencies: bytes, objects: bytes, nb_objects: int, duration: int = 1000) -> dict[str, Any]:
        """A block of given buffers, before they are compressed, as the fields of its request."""
        begin, self.now = self.now, self.now + duration
        fields = {
            "block_id": made_id(self.random),
            "stream_id": self.stream_id,
            "process_id": self.process_id,
            "begin_time": time_text(START_TIME + begin),
            "end_time": time_text(START_TIME + self.now),
            "begin_ticks": begin,
            "end_ticks": self.now,
            "payload": {"dependencies": frame(dependencies), "objects": frame(objects)},
            "object_offset": self.nb_objects,
            "nb_objects": nb_objects,
        }
        self.nb_objects += nb_objects
        return fields

    def ticks(self, position: int = 0) -> int:
        """The counter `position` ticks after the begin of the next block."""
        return START_TICKS + self.now + position

    def logs(self, messages: Sequence[str]) -> dict[str, Any]:
        """A block of log messages, one tick apart."""
        events = [log_event(message, self.ticks(position)) for position, message in enumerate(messages)]
        return self.fields(LOG_DEPENDENCIES, b"".join(events), len(events), max(len(events), 1))

    def measures(self, values: Sequence[float]) -> dict[str, Any]:
        """A block of measures, one tick apart."""
        events = [struct.pack("<BQdq", 0, 4, value, self.ticks(position)) for position, value in enumerate(values)]
        return self.fields(METRIC_DEPENDENCIES, b"".join(events), len(events), max(len(events), 1))

    def spans(self, steps: str) -> dict[str, Any]:
        """A block of begins `(` and ends `)`, one tick apart."""
        events = [struct.pack("<BQq", "()".index(step), 4, self.ticks(position)) for position, step in enumerate(steps)]
        return self.fields(SPAN_DEPENDENCIES, b"".join(events), len(events), max(len(events), 1))


class MadeProcess:
    """A process that knows its clock; all ids come from `random`."""

    def __init__(self, random: Random, **changes: Any) -> None:
        self.random = random
        self.process_id = made_id(random)
        self.changes = changes

    def request(self) -> Request:
        """Its announcement."""
        fields: dict[str, Any] = {
            "process_id": self.process_id,
            "exe": "made",
            "username": "user",
            "realname": "User",
            "computer": "machine",
            "distro": "linux",
            "cpu_brand": "cpu",
            "tsc_frequency": FREQUENCY,
            "start_time": time_text(START_TIME),
            "start_ticks": START_TICKS,
            "parent_process_id": None,
            "properties": {},
        }
        return Request("/ingestion/insert_process", cbor2.dumps(fields | self.changes))

    def stream(self, tag: str, **properties: str) -> MadeStream:
        return MadeStream(self.process_id, made_id(self.random), tag, self.random, properties=properties)


def made_id(random: Random) -> str:
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
