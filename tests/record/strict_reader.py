"""An independent reader of what a recorder sends, as strict as the wire format's recipe (§21, with §3 to §12).

Shares no code with the product: CBOR by cbor2, LZ4 by lz4, the rest is written from the specification. Where servers
are lenient this is not: it fails at the first thing that a recorder should not send. `read` takes accepted requests in
order. Names that are reserved for the server are those of processes and streams; properties of events are free (§2.2).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
import lz4.frame

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|\+00:00)")
NUMBERS = {"u8": "<B", "u32": "<I", "u64": "<Q", "i64": "<q", "f64": "<d"}
LEVEL_WORDS = {"fatal", "error", "warning", "info", "debug", "trace"}
RESERVED = "micromegas."

PROCESS_TEXTS = ("exe", "username", "realname", "computer", "distro", "cpu_brand")
PROCESS_KEYS = {
    "process_id",
    *PROCESS_TEXTS,
    "tsc_frequency",
    "start_time",
    "start_ticks",
    "parent_process_id",
    "properties",
}
STREAM_KEYS = {"process_id", "stream_id", "dependencies_metadata", "objects_metadata", "tags", "properties"}
BLOCK_KEYS = {
    "block_id",
    "stream_id",
    "process_id",
    "begin_time",
    "end_time",
    "begin_ticks",
    "end_ticks",
    "payload",
    "object_offset",
    "nb_objects",
}
TYPE_KEYS = {"name", "size", "members", "is_reference"}
MEMBER_KEYS = {"name", "type_name", "offset", "size", "is_reference"}

# What the members of a record refer to ("text", "properties", or the kind of a description) or which numbers they are.
Shape = Mapping[str, str]
LOCATION = {"target": "text", "module_path": "text", "file": "text", "line": "u32"}
DESCRIPTIONS: Mapping[str, Shape] = {
    "LogMetadataRecord": {"id": "u64", "fmt_str": "text", **LOCATION, "level": "u32"},
    "MetricMetadataDependency": {
        "id": "u64",
        "name": "text",
        "unit": "text",
        "target": "text",
        "file": "text",
        "line": "u32",
        "lod": "u32",
    },
    "SpanRecord": {"id": "u64", "name": "text", **LOCATION, "lod": "u32"},
    "SpanLocationRecord": {"id": "u64", **LOCATION, "lod": "u32"},
}
ASYNC = {"span_id": "u64", "parent_span_id": "u64", "time": "i64", "depth": "u32"}
EVENTS: Mapping[str, Mapping[str, Shape]] = {
    "log": {"LogStaticStrEvent": {"desc": "LogMetadataRecord", "time": "i64"}},
    "metrics": {
        f"{tagged}{number}MetricEvent": {
            "desc": "MetricMetadataDependency",
            **({"properties": "properties"} if tagged else {}),
            "value": {"Integer": "u64", "Float": "f64"}[number],
            "time": "i64",
        }
        for tagged in ("", "Tagged")
        for number in ("Integer", "Float")
    },
    "cpu": {
        **{f"{edge}ThreadSpanEvent": {"thread_span_desc": "SpanRecord", "time": "i64"} for edge in ("Begin", "End")},
        **{
            f"{edge}ThreadNamedSpanEvent": {
                "thread_span_location": "SpanLocationRecord",
                "name": "text",
                "time": "i64",
            }
            for edge in ("Begin", "End")
        },
        **{f"{edge}AsyncSpanEvent": {"span_desc": "SpanRecord", **ASYNC} for edge in ("Begin", "End")},
        **{
            f"{edge}AsyncNamedSpanEvent": {"span_location": "SpanLocationRecord", "name": "text", **ASYNC}
            for edge in ("Begin", "End")
        },
    },
}
# Events without fixed size: the references before the time, then a text to the end.
TEXT_EVENTS = {
    "LogStringEventV2": {"desc": "LogMetadataRecord"},
    "TaggedLogString": {"desc": "LogMetadataRecord", "properties": "properties"},
}
HELPERS = {"Property": {"name": "text", "value": "text"}}


class Violation(AssertionError):
    """Something that a recorder should not send."""


def require(condition: object, *told: object) -> None:
    if not condition:
        raise Violation(" ".join(map(str, told)))


@dataclass
class Layout:
    name: str
    size: int
    members: dict[str, tuple[int, str]]
    """Offset and number type; references are u64."""
    references: set[str]


@dataclass
class Event:
    name: str
    values: dict[str, Any]

    @property
    def time(self) -> int:
        return self.values["time"]


@dataclass
class Stream:
    process: dict[str, Any]
    tag: str
    properties: dict[str, str]
    dependencies: list[Layout]
    objects: list[Layout]
    blocks: list[tuple[dict[str, Any], list[Event]]] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [event for _, events in self.blocks for event in events]


@dataclass
class Read:
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    block_ids: set[str] = field(default_factory=set)

    def of(self, tag: str) -> list[Stream]:
        return [stream for stream in self.streams.values() if stream.tag == tag]


def read(requests: Iterable[tuple[str, bytes]], *, lossless: bool = True) -> Read:
    """Reads requests (route and body) in order of arrival. Fails where anything is not as it should be.

    `lossless`: no event was lost on the way, so that the blocks of a stream join, and spans are balanced.
    """
    found = Read()
    for route, body in requests:
        request = _decoded(body)
        if route == "insert_process":
            _read_process(found, request)
        elif route == "insert_stream":
            _read_stream(found, request)
        else:
            require(route == "insert_block", "route", route)
            _read_block(found, request)
    for stream in found.streams.values():
        require(stream.blocks, "a stream without blocks was announced")
        _check_chain(stream, lossless)
        if stream.tag == "cpu" and lossless:
            _check_balance(stream)
    _check_async_spans(found, lossless)
    return found


def _decoded(body: bytes) -> dict[str, Any]:
    """One map, nothing after it, no key twice, everything of definite length and as short as can be."""
    value = cbor2.loads(body)
    require(isinstance(value, dict), "no map")
    require(cbor2.dumps(value) == body, "not the one encoding of its content:", list(value))
    return value


def _keys(mapping: Any, keys: set[str], what: str) -> None:
    require(isinstance(mapping, dict), what, "is no map")
    require(set(mapping) == keys, what, "has other keys:", sorted(set(mapping) ^ keys))


def _integer(value: Any, low: int, high: int, what: str) -> int:
    require(type(value) is int and low <= value <= high, what, "is", repr(value))
    return value


def _uuid(value: Any, what: str) -> str:
    require(isinstance(value, str) and UUID.fullmatch(value), what, "is no lower-case uuid of version 4:", repr(value))
    return value


def _text(value: Any, what: str) -> str:
    require(isinstance(value, str), what, "is no text")
    require(len(value) <= 255, what, "has", len(value), "characters")
    require("\0" not in value, what, "has a NUL")
    return value


def _properties(value: Any, what: str) -> dict[str, str]:
    require(isinstance(value, dict), what, "are no map")
    for name, text in value.items():
        _text(name, f"{what}: a name")
        _text(text, f"{what}: {name}")
        require(name, what, "have an empty name")
        require(not name.startswith(RESERVED), what, "have a reserved name:", name)
    return value


def _nanoseconds(value: Any, what: str) -> int:
    """Nanoseconds since the epoch of a time in RFC 3339, with nine digits and in UTC."""
    match = isinstance(value, str) and TIME.fullmatch(value)
    require(match, what, "is no time:", repr(value))
    import datetime

    seconds = datetime.datetime.fromisoformat(match[1]).replace(tzinfo=datetime.UTC).timestamp()
    return int(seconds) * 1_000_000_000 + int(match[2])


def _read_process(found: Read, process: dict[str, Any]) -> None:
    _keys(process, PROCESS_KEYS, "process")
    process_id = _uuid(process["process_id"], "process_id")
    require(process_id not in found.processes, "process announced twice:", process_id)
    for name in PROCESS_TEXTS:
        _text(process[name], name)
    require(process["exe"], "exe is empty")
    require(process["tsc_frequency"] == 1_000_000_000, "frequency", process["tsc_frequency"])
    process["start_ns"] = _nanoseconds(process["start_time"], "start_time")
    _integer(process["start_ticks"], 0, 2**63 - 1, "start_ticks")
    if process["parent_process_id"] is not None:
        _uuid(process["parent_process_id"], "parent_process_id")
        require(process["parent_process_id"] != process_id, "a process is its own parent")
    _properties(process["properties"], "process properties")
    found.processes[process_id] = process


def _layouts(declared: Any, what: str) -> list[Layout]:
    require(isinstance(declared, list) and 0 < len(declared) <= 256, what, "is no list of types")
    layouts = []
    for entry in declared:
        _keys(entry, TYPE_KEYS, f"type in {what}")
        name = _text(entry["name"], "type name")
        size = _integer(entry["size"], 0, 4096, f"size of {name}")
        require(entry["is_reference"] is False, name, "is a handle")
        end, members, references = 0, {}, set()
        for member in entry["members"]:
            _keys(member, MEMBER_KEYS, f"member of {name}")
            member_name, type_name = member["name"], member["type_name"]
            require(member_name not in members, name, "has two members", member_name)
            require(member["offset"] == end, name, "is not packed at", member_name)
            if member["is_reference"] is True:
                require(member["size"] == 8, name, member_name, "is a reference of", member["size"], "bytes")
                references.add(member_name)
                type_name = "u64"
            else:
                require(member["is_reference"] is False, name, member_name, "is_reference is no boolean")
                require(type_name in NUMBERS, name, member_name, "is a", type_name)
                require(member["size"] == struct.calcsize(NUMBERS[type_name]), name, member_name, "has another size")
            members[member_name] = (end, type_name)
            end += member["size"]
        require(size == end, name, "of", size, "bytes has members of", end)
        layouts.append(Layout(name, size, members, references))
    names = [layout.name for layout in layouts]
    require(len(set(names)) == len(names), what, "has a type twice:", names)
    return layouts


def _check_shape(layout: Layout, shape: Shape) -> None:
    """Names and types of members are those that existing servers read."""
    require(set(layout.members) == set(shape), layout.name, "has other members:", sorted(layout.members))
    for name, (_, type_name) in layout.members.items():
        is_reference = shape[name] not in NUMBERS
        require((name in layout.references) == is_reference, layout.name, name, "is a reference, or is none")
        allowed = {"i64", "u64"} if name == "time" else {shape[name]}
        require(is_reference or type_name in allowed, layout.name, name, "is a", type_name)


def _read_stream(found: Read, stream: dict[str, Any]) -> None:
    _keys(stream, STREAM_KEYS, "stream")
    stream_id = _uuid(stream["stream_id"], "stream_id")
    process_id = _uuid(stream["process_id"], "process_id")
    require(process_id in found.processes, "stream before its process")
    require(stream_id not in found.streams, "stream announced twice:", stream_id)
    tags = stream["tags"]
    require(isinstance(tags, list) and len(tags) == 1 and tags[0] in EVENTS, "tags", tags)
    tag = tags[0]
    properties = _properties(stream["properties"], "stream properties")
    if tag == "cpu":
        require(set(properties) <= {"thread-id", "thread-name"}, "stream properties", properties)
        require(properties.get("thread-id", "").isdecimal(), "thread-id", properties)
    else:
        require(not properties, "stream properties", properties)
        same = [other for other in found.of(tag) if other.process["process_id"] == process_id]
        require(not same, "a second stream of", tag)
    dependencies = _layouts(stream["dependencies_metadata"], "dependencies_metadata")
    objects = _layouts(stream["objects_metadata"], "objects_metadata")
    for layout in dependencies:
        if layout.name in DESCRIPTIONS:
            _check_shape(layout, DESCRIPTIONS[layout.name])
        elif layout.name in HELPERS:
            _check_shape(layout, HELPERS[layout.name])
        else:
            known = ("StaticString", "StaticStringDependency", "PropertySetDependency")
            require(layout.name in known and layout.size == 0, "dependency type", layout.name, layout.size)
    for layout in objects:
        if layout.size:
            require(layout.name in EVENTS[tag], "event type", layout.name, "in", tag)
            _check_shape(layout, EVENTS[tag][layout.name])
        else:
            require(tag == "log" and layout.name in TEXT_EVENTS, "event type", layout.name, "in", tag)
    found.streams[stream_id] = Stream(found.processes[process_id], tag, properties, dependencies, objects)


def _buffer(frame: Any, what: str) -> bytes:
    """One LZ4 frame and nothing else."""
    require(isinstance(frame, bytes), what, "is no byte string")
    require(frame[:4] == b"\x04\x22\x4d\x18", what, "is no LZ4 frame")
    decompressor = lz4.frame.LZ4FrameDecompressor()
    buffer = decompressor.decompress(frame)
    require(decompressor.eof, what, "is an incomplete frame")
    require(not decompressor.unused_data, what, "has bytes after its frame")
    return buffer


class Cursor:
    """Reads within a record; what is left at its end is an error."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.place = data, what, 0

    def take(self, count: int) -> bytes:
        require(self.place + count <= len(self.data), self.what, "ends too early")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def rest_as_text(self) -> str:
        try:
            return self.take(len(self.data) - self.place).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Violation(f"{self.what}: {error}") from None

    def text(self) -> str:
        require(self.number("<B") == 2, self.what, "has a text that is no UTF-8")
        length = self.number("<I")
        require(self.place + length == len(self.data), self.what, "has a text of another length")
        return self.rest_as_text()

    def end(self) -> None:
        require(self.place == len(self.data), self.what, "has", len(self.data) - self.place, "bytes too many")


def _records(buffer: bytes, layouts: list[Layout], what: str) -> Iterable[tuple[Layout, Cursor]]:
    whole = Cursor(buffer, what)
    while whole.place < len(buffer):
        index = whole.number("<B")
        require(index < len(layouts), what, "has a record of type", index)
        layout = layouts[index]
        size = layout.size or whole.number("<I")
        yield layout, Cursor(whole.take(size), layout.name)


class Dependencies:
    """What the events of one block refer to, by id, and what of it was referred to."""

    def __init__(self, buffer: bytes, layouts: list[Layout]) -> None:
        self.values: dict[int, tuple[str, Any]] = {}
        self.used: set[int] = set()
        self.users: dict[int, list[int]] = {}
        self.said: set[tuple[str, str]] = set()
        for layout, record in _records(buffer, layouts, "dependencies"):
            require(layout.name not in HELPERS, layout.name, "is no record")
            self._read(layout, record)

    def _read(self, layout: Layout, record: Cursor) -> None:
        needed: list[int] = []
        if layout.name == "StaticString":
            identity, kind = record.number("<Q"), "text"
            value: Any = record.rest_as_text()
        elif layout.name == "StaticStringDependency":
            identity, kind, value = record.number("<Q"), "text", record.text()
        elif layout.name == "PropertySetDependency":
            identity, kind = record.number("<Q"), "properties"
            pairs = []
            for _ in range(record.number("<I")):
                pair = (record.number("<Q"), record.number("<Q"))
                needed.extend(pair)
                pairs.append(tuple(self._look(reference, "text") for reference in pair))
            names = [name for name, _ in pairs]
            require(len(set(names)) == len(names), "a property twice:", names)
            for name, text in pairs:
                require(name != "level" or text in LEVEL_WORDS, "property level is", text)
            value = dict(pairs)
        else:
            kind, value = layout.name, {}
            for name, (_, type_name) in layout.members.items():
                number = record.number(NUMBERS[type_name])
                if name in layout.references:
                    needed.append(number)
                    number = self._look(number, DESCRIPTIONS[kind][name])
                value[name] = number
            identity = value.pop("id")
            require(1 <= value.get("level", 4) <= 6, "level", value)
            require(1 <= value.get("lod", 2) <= 3, "lod", value)
        record.end()
        require(identity == len(self.values) + 1, "id", identity, "after", len(self.values))
        said = (kind, repr(value))
        # texts and property sets are told once; two places of a program may be described alike
        require(kind in DESCRIPTIONS or said not in self.said, kind, "said twice:", value)
        self.said.add(said)
        self.values[identity] = (kind, value)
        self.users[identity] = needed

    def _look(self, identity: int, kind: str) -> Any:
        require(identity in self.values, "reference to", identity, "before it is defined")
        found, value = self.values[identity]
        require(found == kind, "reference to a", found, "in place of a", kind)
        return value

    def use(self, identity: int, kind: str) -> Any:
        value = self._look(identity, kind)
        pending = [identity]
        while pending:
            needed = pending.pop()
            if needed not in self.used:
                self.used.add(needed)
                pending.extend(self.users[needed])
        return value

    def check_use(self) -> None:
        unused = set(self.values) - self.used
        require(not unused, "dependencies that no event uses:", [self.values[identity] for identity in sorted(unused)])


def _read_block(found: Read, block: dict[str, Any]) -> None:
    _keys(block, BLOCK_KEYS, "block")
    block_id = _uuid(block["block_id"], "block_id")
    require(block_id not in found.block_ids, "block sent twice:", block_id)
    found.block_ids.add(block_id)
    require(_uuid(block["stream_id"], "stream_id") in found.streams, "block before its stream")
    stream = found.streams[block["stream_id"]]
    require(block["process_id"] == stream.process["process_id"], "block of another process than its stream")
    for edge in ("begin", "end"):
        ticks = _integer(block[f"{edge}_ticks"], 0, 2**63 - 1, f"{edge}_ticks")
        wall = _nanoseconds(block[f"{edge}_time"], f"{edge}_time")
        require(wall == stream.process["start_ns"] + ticks, edge, "in ticks and as time differ")
    require(block["begin_ticks"] <= block["end_ticks"], "block ends before it begins")
    _integer(block["object_offset"], 0, 2**63 - 1, "object_offset")
    _integer(block["nb_objects"], 1, 2**31 - 1, "nb_objects")
    _keys(block["payload"], {"dependencies", "objects"}, "payload")
    dependencies = Dependencies(_buffer(block["payload"]["dependencies"], "dependencies"), stream.dependencies)
    events = []
    for layout, record in _records(_buffer(block["payload"]["objects"], "objects"), stream.objects, "objects"):
        values: dict[str, Any] = {}
        if layout.size:
            shape = EVENTS[stream.tag][layout.name]
            for name, (_, type_name) in layout.members.items():
                value = record.number(NUMBERS[type_name])
                values[name] = dependencies.use(value, shape[name]) if name in layout.references else value
        else:
            for name, kind in TEXT_EVENTS[layout.name].items():
                values[name] = dependencies.use(record.number("<Q"), kind)
            values["time"] = record.number("<q")
            values["msg"] = record.text()
        record.end()
        events.append(Event(layout.name, values))
    dependencies.check_use()
    require(len(events) == block["nb_objects"], "nb_objects", block["nb_objects"], "of", len(events))
    start = stream.process["start_ticks"]
    for event in events:
        inside = block["begin_ticks"] <= event.time - start <= block["end_ticks"]
        require(inside, event.name, "at", event.time - start, "outside", block["begin_ticks"], block["end_ticks"])
    stream.blocks.append((block, events))


def _check_chain(stream: Stream, lossless: bool) -> None:
    stream.blocks.sort(key=lambda entry: entry[0]["object_offset"])
    offset, end = 0, None
    for block, events in stream.blocks:
        here = block["object_offset"]
        require(here == offset if lossless else here >= offset, "object_offset", here, "after", offset)
        if end is not None and here == offset and block["begin_ticks"] != end:
            # Of streams that several threads write to, one may commit late: the block covers its event, too.
            first = min(event.time for event in events) - stream.process["start_ticks"]
            late = stream.tag != "cpu" and block["begin_ticks"] == first < end
            require(late, "a block begins at", block["begin_ticks"], "after one that ended at", end)
        offset, end = here + block["nb_objects"], block["end_ticks"]


def _check_balance(stream: Stream) -> None:
    """Spans of a thread nest; what is still open at the end is left open."""
    open_spans: list[tuple[str, str]] = []
    last = 0
    for event in stream.events:
        if "Thread" not in event.name:
            continue
        require(event.time >= last, "a thread's events are not in order")
        last = event.time
        values = event.values
        place = values.get("thread_span_desc") or values.get("thread_span_location")
        span = (values.get("name") or place["name"], f"{place['file']}:{place['line']}")
        if event.name.startswith("Begin"):
            open_spans.append(span)
        else:
            require(open_spans and open_spans.pop() == span, "a span ends that is not the innermost:", span)


def _check_async_spans(found: Read, lossless: bool) -> None:
    """Ids are from 1, each begins once and ends once at most, in whatever stream; parents are one level up."""
    for process_id in found.processes:
        streams = [stream for stream in found.of("cpu") if stream.process["process_id"] == process_id]
        begun: dict[int, Event] = {}
        ended: dict[int, Event] = {}
        for event in (event for stream in streams for event in stream.events if "Async" in event.name):
            edges = begun if event.name.startswith("Begin") else ended
            identity = event.values["span_id"]
            require(identity >= 1, "span id", identity)
            require(identity not in edges, event.name, "twice for", identity)
            require(event.values["parent_span_id"] != identity, "a span is its own parent")
            edges[identity] = event
        for identity, end in ended.items():
            begin = begun.get(identity)
            require(begin is not None or not lossless, "span", identity, "ends without a begin")
            if begin is not None:
                for name in ("parent_span_id", "depth"):
                    require(begin.values[name] == end.values[name], "span", identity, "ends with another", name)
                require(begin.time <= end.time, "span", identity, "ends before it begins")
        for identity, begin in begun.items():
            parent = begun.get(begin.values["parent_span_id"])
            if parent is not None:
                expected = parent.values["depth"] + 1
                require(begin.values["depth"] == expected, "depth of span", identity, "is no", expected)
