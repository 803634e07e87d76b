"""Captured events as typed values, made of the blocks that a server would have got. Times are ns since the epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from micromegas import _core

LEVEL_NAMES = {1: "fatal", 2: "error", 3: "warn", 4: "info", 5: "debug", 6: "trace"}

_Bodies = tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Log:
    """A log event: `level` is one of `fatal` … `trace`, `template` the message before its values were put in."""

    level: str
    target: str
    message: str
    template: str
    properties: dict[str, str]
    time: int
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a metric, or what was added to a counter since its last one."""

    name: str
    unit: str
    value: int | float
    target: str
    properties: dict[str, str]
    time: int
    file: str
    line: int


@dataclass(slots=True)
class Span:
    """A span of a thread, and those inside of it. `end` is None while it is open."""

    name: str
    target: str
    begin: int
    end: int | None
    thread: str
    file: str
    line: int
    parent: "Span | None" = field(repr=False, compare=False)
    children: "list[Span]" = field(default_factory=lambda: [])

    def walk(self) -> "Iterator[Span]":
        """This span and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(slots=True)
class AsyncSpan:
    """An async span and its children. `parent_id` is 0 without a parent; `end` is None while it is open."""

    name: str
    target: str
    id: int
    parent_id: int
    depth: int
    begin: int
    end: int | None
    file: str
    line: int
    parent: "AsyncSpan | None" = field(default=None, repr=False, compare=False)
    children: "list[AsyncSpan]" = field(default_factory=lambda: [])

    def walk(self) -> "Iterator[AsyncSpan]":
        """This span and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class _Clock:
    """Turns the ticks of a process into ns since the epoch."""

    frequency: int
    start_time: int
    start_ticks: int

    def time(self, ticks: int) -> int:
        return self.start_time + (ticks - self.start_ticks) * 1_000_000_000 // self.frequency


def _described(event: dict[str, Any]) -> tuple[str, str, str, int]:
    """Name, target, file and line of a span event, whose name stands beside its place when it was made at run time."""
    place = event.get("thread_span_desc") or event.get("span_desc") or event.get("thread_span_location")
    place = place or event["span_location"]
    return event.get("name", place.get("name")), place["target"], place["file"], place["line"]


class Events:
    """What a capture holds. Reading waits until everything recorded so far is in it; lists are ordered by time."""

    def __init__(self, take: Callable[[], list[_Bodies]]) -> None:
        self._take: Callable[[], list[_Bodies]] | None = take
        self._logs: list[Log] = []
        self._metrics: list[Measure] = []
        self._spans: list[Span] = []
        self._open_spans: dict[str, list[Span]] = {}
        self._async_spans: dict[tuple[str, int], AsyncSpan] = {}
        self._async_ends: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        """Read the rest; nothing is added from now on."""
        self._read()
        self._take = None

    @property
    def logs(self) -> list[Log]:
        """All log events."""
        self._read()
        return sorted(self._logs, key=lambda log: log.time)

    @property
    def metrics(self) -> list[Measure]:
        """All measures."""
        self._read()
        return sorted(self._metrics, key=lambda measure: measure.time)

    @property
    def spans(self) -> list[Span]:
        """The outermost spans of all threads. A span that was open when the capture began is not in it."""
        self._read()
        return sorted(self._spans, key=lambda span: span.begin)

    @property
    def async_spans(self) -> list[AsyncSpan]:
        """The async spans whose parents were not captured, the others being their children."""
        self._read()
        return sorted((span for span in self._async_spans.values() if span.parent is None), key=lambda span: span.begin)

    def _read(self) -> None:
        if self._take is None:
            return
        for process_body, stream_body, block_body in self._take():
            process = _core.parse_process(process_body)
            clock = _Clock(process[7] or 1_000_000_000, process[8], process[9])
            _, stream_id, dependencies, objects, tags, properties, stream_format = _core.parse_stream(stream_body)
            events = _core.decode_events(dependencies, objects, _core.parse_block(block_body)[7], format=stream_format)
            if "cpu" in tags:
                self._add_spans(process[0], stream_id, properties.get("thread-name", ""), clock, events)
            else:
                self._add_points(clock, events)
        self._join_async_spans()

    def _add_points(self, clock: _Clock, events: list[dict[str, Any]]) -> None:
        for event in events:
            described = event["desc"]
            properties = dict(event.get("properties", ()))
            time = clock.time(event["time"])
            target, file, line = described["target"], described["file"], described["line"]
            if "value" in event:
                name, unit = described["name"], described["unit"]
                self._metrics.append(Measure(name, unit, event["value"], target, properties, time, file, line))
            else:
                template = described["fmt_str"]
                level = LEVEL_NAMES[described["level"]]
                message = event.get("msg", template)
                self._logs.append(Log(level, target, message, template, properties, time, file, line))

    def _add_spans(
        self, process_id: str, stream_id: str, thread: str, clock: _Clock, events: list[dict[str, Any]]
    ) -> None:
        open_spans = self._open_spans.setdefault(stream_id, [])
        for event in events:
            time = clock.time(event["time"])
            name, target, file, line = _described(event)
            match event["$type"]:
                case "BeginThreadSpanEvent" | "BeginThreadNamedSpanEvent":
                    parent = open_spans[-1] if open_spans else None
                    span = Span(name, target, time, None, thread, file, line, parent)
                    (parent.children if parent else self._spans).append(span)
                    open_spans.append(span)
                case "EndThreadSpanEvent" | "EndThreadNamedSpanEvent":
                    while open_spans and any(span.name == name for span in open_spans):
                        ended = open_spans.pop()
                        if ended.name == name:
                            ended.end = time
                            break
                case "BeginAsyncSpanEvent" | "BeginAsyncNamedSpanEvent":
                    span_id, parent_id, depth = event["span_id"], event["parent_span_id"], event["depth"]
                    self._async_spans[process_id, span_id] = AsyncSpan(
                        name, target, span_id, parent_id, depth, time, None, file, line
                    )
                case "EndAsyncSpanEvent" | "EndAsyncNamedSpanEvent":
                    # Another thread's block, read before the one with the begin, may hold the end.
                    self._async_ends[process_id, event["span_id"]] = time
                case _:
                    pass

    def _join_async_spans(self) -> None:
        for (process_id, span_id), span in self._async_spans.items():
            span.end = self._async_ends.get((process_id, span_id))
            if span.parent is None and (parent := self._async_spans.get((process_id, span.parent_id))):
                span.parent = parent
                parent.children.append(span)
        for span in self._async_spans.values():
            span.children.sort(key=lambda child: child.begin)
