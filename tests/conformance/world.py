"""A made world of which everything is known in Python: two editors of a game and a service, over three hours.

Its requests go to a server, its rows to the computation of what SQL must answer. It must never import the product.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import cbor2
from codec.block_maker import BlockMaker, member, reference, text, udt
from e2e.made_traffic import made_id, time_text
from e2e.recordings import Request

START = 1_779_998_400_000_000_000
"""When all processes start, ns since the epoch: 20:00 UTC on 2026-05-28. Their counters begin at 0 and count ns."""

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

LOG_EVENTS = (udt("TaggedLogString", 0),)
METRIC_EVENTS = (
    udt(
        "TaggedFloatMetricEvent",
        32,
        reference("desc", 0),
        reference("properties", 8),
        member("value", "f64", 16, 8),
        member("time", "i64", 24, 8),
    ),
)
CPU_EVENTS = (
    udt("BeginThreadSpanEvent", 16, reference("thread_span_desc", 0), member("time", "i64", 8, 8)),
    udt("EndThreadSpanEvent", 16, reference("thread_span_desc", 0), member("time", "i64", 8, 8)),
    *(
        udt(
            name,
            40,
            reference("span_desc", 0),
            member("span_id", "u64", 8, 8),
            member("parent_span_id", "u64", 16, 8),
            member("time", "i64", 24, 8),
            member("depth", "u32", 32, 4),
        )
        for name in ("BeginAsyncSpanEvent", "EndAsyncSpanEvent")
    ),
)
MESSAGES: tuple[Callable[[int], str], ...] = (
    lambda number: f"loaded asset {number}",
    lambda number: f"timeout of request {number}",
    lambda number: json.dumps({"event": ("login", "logout")[number % 2], "number": number}),
    lambda number: f"50% of {number}_done",
)


@dataclass(frozen=True, slots=True)
class Process:
    """What a process announced."""

    process_id: str
    exe: str
    properties: dict[str, str]
    streams: list[Stream] = field(default_factory=list, repr=False)


@dataclass(slots=True)
class Stream:
    """What a stream announced, and its blocks."""

    process: Process
    stream_id: str
    tag: str
    properties: dict[str, str]
    blocks: list[Block] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """A block as its row tells of it; times in ns since the epoch."""

    block_id: str
    stream: Stream
    begin: int
    end: int
    nb_objects: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Log:
    """A row of `log_entries`."""

    process: Process
    time: int
    level: int
    target: str
    msg: str
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of `measures`."""

    process: Process
    time: int
    target: str
    name: str
    unit: str
    value: float
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """A row of `thread_spans`; `stream` says whose."""

    stream: Stream
    id: int
    parent: int
    depth: int
    name: str
    begin: int
    end: int

    @property
    def duration(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class AsyncSpan:
    """A pair of rows of `async_events`; `end` is None while the span is open."""

    process: Process
    id: int
    parent: int
    depth: int
    name: str
    begin: int
    end: int | None


@dataclass(slots=True)
class World:
    """All of it."""

    processes: list[Process] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    async_spans: list[AsyncSpan] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    @property
    def streams(self) -> list[Stream]:
        return [stream for process in self.processes for stream in process.streams]

    @property
    def blocks(self) -> list[Block]:
        return [block for stream in self.streams for block in stream.blocks]


def made_world(seed: int) -> World:
    """The world of a seed; its requests are in an order in which a server could have got them."""
    maker = _WorldMaker(Random(seed))
    ann = maker.process("GameEditor.exe", branch="main", build="100")
    bob = maker.process("GameEditor.exe", branch="dev", build="101")
    service = maker.process("matchmaker", branch="main", build="100")
    for process in (ann, bob, service):
        maker.logs(process)
        maker.measures(process)
    for thread in ("main", "render"):
        maker.frames(ann, thread)
    maker.requests_of(service)
    return maker.world


class _WorldMaker:
    def __init__(self, random: Random) -> None:
        self.world = World()
        self._random = random

    def process(self, exe: str, **properties: str) -> Process:
        made = Process(made_id(self._random), exe, properties)
        self.world.processes.append(made)
        body = {
            "process_id": made.process_id,
            "exe": exe,
            "username": "user",
            "realname": "User",
            "computer": "desk",
            "distro": "linux",
            "cpu_brand": "cpu",
            "tsc_frequency": SECOND,
            "start_time": time_text(START),
            "start_ticks": 0,
            "parent_process_id": None,
            "properties": properties,
        }
        self.world.requests.append(Request("/ingestion/insert_process", cbor2.dumps(body)))
        return made

    def _stream(self, process: Process, tag: str, events: tuple[dict[str, Any], ...], **properties: str) -> Stream:
        made = Stream(process, made_id(self._random), tag, properties)
        process.streams.append(made)
        dependencies, objects = (cbor2.loads(each) for each in BlockMaker(events).metadata())
        body = {
            "process_id": process.process_id,
            "stream_id": made.stream_id,
            "dependencies_metadata": dependencies,
            "objects_metadata": objects,
            "tags": [tag],
            "properties": properties,
        }
        self.world.requests.append(Request("/ingestion/insert_stream", cbor2.dumps(body)))
        return made

    def _block(self, stream: Stream, maker: BlockMaker, nb_objects: int, begin: int, end: int) -> None:
        made = Block(made_id(self._random), stream, begin, end, nb_objects, maker.payload())
        body = {
            "block_id": made.block_id,
            "stream_id": stream.stream_id,
            "process_id": stream.process.process_id,
            "begin_time": time_text(begin),
            "end_time": time_text(end),
            "begin_ticks": begin - START,
            "end_ticks": end - START,
            "payload": cbor2.loads(made.payload),
            "object_offset": sum(each.nb_objects for each in stream.blocks),
            "nb_objects": nb_objects,
        }
        stream.blocks.append(made)
        self.world.requests.append(Request("/ingestion/insert_block", cbor2.dumps(body)))

    def _times(self, count: int, begin: int, end: int) -> list[int]:
        return sorted(self._random.sample(range(begin, end), count))

    def logs(self, process: Process) -> None:
        random = self._random
        stream = self._stream(process, "log", LOG_EVENTS)
        for begin in range(START, START + 3 * HOUR, HOUR // 2):
            end = begin + HOUR // 2
            maker = BlockMaker(LOG_EVENTS)
            for time in self._times(40, begin, end):
                properties = {"user_id": f"u{random.randint(40, 44)}"} if random.random() < 0.5 else {}
                made = Log(
                    process,
                    time,
                    random.choice((1, 2, 2, 3, 4, 4, 4, 5, 6)),
                    random.choice(("net", "ui", "assets")),
                    random.choice(MESSAGES)(random.randint(0, 9)),
                    properties,
                )
                self.world.logs.append(made)
                ids = (maker.log_description("", made.target, made.level), maker.properties(*properties.items()))
                maker.event("TaggedLogString", struct.pack("<QQq", *ids, time - START) + text(made.msg))
            self._block(stream, maker, 40, begin, end)

    def measures(self, process: Process) -> None:
        random = self._random
        stream = self._stream(process, "metrics", METRIC_EVENTS)
        names = {"frame_time": ("ms", 0.0, 100.0), "cpu_usage": ("%", 60.0, 100.0), "x": ("count", 0.0, 50.0)}
        for begin in range(START, START + 3 * HOUR, HOUR):
            end = begin + HOUR
            maker = BlockMaker(METRIC_EVENTS)
            for time in self._times(120, begin, end):
                name, (unit, low, high) = random.choice(list(names.items()))
                properties = {"zone": random.choice("ab")}
                value = round(random.uniform(low, high), 3)
                made = Measure(process, time, "game", name, unit, value, properties)
                self.world.measures.append(made)
                ids = (maker.metric_description(name, unit, "game"), maker.properties(*properties.items()))
                maker.event("TaggedFloatMetricEvent", struct.pack("<QQdq", *ids, value, time - START))
            self._block(stream, maker, 120, begin, end)

    def frames(self, process: Process, thread: str) -> None:
        """`frame` over `tick` over `physics`, and `draw`; blocks end in the middle of spans, one lies hours later."""
        thread_id = {"main": "11", "render": "12"}[thread]
        stream = self._stream(process, "cpu", CPU_EVENTS, **{"thread-name": thread, "thread-id": thread_id})
        for chain_begin in (START + MINUTE, START + 2 * HOUR):
            self._frames(stream, chain_begin)

    def _frames(self, stream: Stream, begin: int) -> None:
        random = self._random
        steps: list[tuple[int, str, bool]] = []
        now = begin
        for _ in range(60):
            for name, is_begin in (
                ("frame", True),
                ("tick", True),
                ("physics", True),
                ("physics", False),
                ("tick", False),
                ("draw", True),
                ("draw", False),
                ("frame", False),
            ):
                now += random.randint(1_000, 10_000_000)
                steps.append((now, name, is_begin))
        offset = sum(block.nb_objects for block in stream.blocks)
        root = Span(
            stream, -1, 0, 0, f"{stream.properties['thread-name']}-{stream.properties['thread-id']}", begin, now
        )
        self.world.spans.append(root)
        open_spans: list[tuple[int, int, str]] = []
        for position, (time, name, is_begin) in enumerate(steps):
            if is_begin:
                open_spans.append((offset + position, time, name))
                continue
            span_id, span_begin, _ = open_spans.pop()
            parent = open_spans[-1][0] if open_spans else root.id
            self.world.spans.append(Span(stream, span_id, parent, len(open_spans) + 1, name, span_begin, time))
        block_begin = begin
        for first in range(0, len(steps), 101):
            part = steps[first : first + 101]
            maker = BlockMaker(CPU_EVENTS)
            for time, name, is_begin in part:
                kind = "BeginThreadSpanEvent" if is_begin else "EndThreadSpanEvent"
                maker.event(kind, struct.pack("<Qq", maker.span_description(name, "game", 7), time - START))
            self._block(stream, maker, len(part), block_begin, part[-1][0])
            block_begin = part[-1][0]

    def requests_of(self, process: Process) -> None:
        """Async spans that overlap each other: `match` over `lookup`; the last ones never end."""
        random = self._random
        stream = self._stream(process, "cpu", CPU_EVENTS, **{"thread-name": "pool", "thread-id": "13"})
        events: list[tuple[int, str, AsyncSpan]] = []
        for number in range(40):
            begin = START + 10 * MINUTE + number * SECOND
            length = random.randint(SECOND, 5 * SECOND)
            is_open = number >= 38
            outer = AsyncSpan(process, 2 * number + 1, 0, 0, "match", begin, None if is_open else begin + length)
            inner = AsyncSpan(
                process, 2 * number + 2, outer.id, 1, "lookup", begin + length // 4, begin + length // 2 + number
            )
            for span in (outer, inner):
                self.world.async_spans.append(span)
                events.append((span.begin, "BeginAsyncSpanEvent", span))
                if span.end is not None:
                    events.append((span.end, "EndAsyncSpanEvent", span))
        events.sort(key=lambda event: event[0])
        block_begin = START + 10 * MINUTE
        for first in range(0, len(events), 33):
            part = events[first : first + 33]
            maker = BlockMaker(CPU_EVENTS)
            for time, kind, span in part:
                body = struct.pack(
                    "<QQQqI4x",
                    maker.span_description(span.name, "service", 9),
                    span.id,
                    span.parent,
                    time - START,
                    span.depth,
                )
                maker.event(kind, body)
            self._block(stream, maker, len(part), block_begin, part[-1][0])
            block_begin = part[-1][0]
