"""The rows that a recording must give in SQL, made from what the sender's own parser read in it.

Plain Python over `recordings`; it must never import the product. For a process that does not know its frequency, a lake
that got all blocks at once estimates it from the newest; of others the clock has to be told (`know_clock`).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from e2e.call_tree import Scope, ThreadBlock, ThreadEvent, scope_hash, span_rows
from e2e.recordings import RecordedBlock, Recording

Row = tuple[Any, ...]
"""A row in comparable form: times as ns, doubles as `comparable_double`, property sets as frozen sets of pairs."""

Properties = frozenset[tuple[str, str]]
LEVELS = {"fatal": 1, "error": 2, "warning": 3, "info": 4, "debug": 5, "trace": 6}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_ERROR = 1_000_000


def nanoseconds(text: str) -> int:
    """ns since the epoch of an RFC 3339 time, with all nine digits of its fraction."""
    body, zone = (text[:-1], "+00:00") if text.endswith(("Z", "z")) else (text[:-6], text[-6:])
    whole, _, fraction = body.partition(".")
    moment = datetime.fromisoformat(whole + zone)
    return int((moment - EPOCH).total_seconds()) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or "0")


def rounded_quotient(dividend: int, divisor: int) -> int:
    """The integer nearest to a quotient with a positive divisor, halves away from zero."""
    return (2 * dividend + divisor) // (2 * divisor) if dividend >= 0 else -rounded_quotient(-dividend, divisor)


def comparable_double(value: float) -> bytes:
    """Bits of a double, so that -0.0 differs from 0.0 and NaN equals itself."""
    return struct.pack("<d", math.nan if math.isnan(value) else value)


def in_seconds(value: float) -> str:
    """A value that was converted from ticks, to twelve digits: the order of multiplications is free."""
    return f"{value:.12g}"


class ProcessReference:
    """One process of a recording, with its clock and its rows."""

    def __init__(self, recording: Recording, process_id: str) -> None:
        self.facts = recording.processes[process_id]
        self.process_id = process_id
        self.streams = {key: value for key, value in recording.streams.items() if value["process_id"] == process_id}
        self.blocks = [block for block in recording.blocks if block.header["process_id"] == process_id]
        self.start_time = nanoseconds(self.facts["start_time"])
        self.start_ticks: int = self.facts["start_ticks"]
        self.properties: Properties = frozenset(self.facts["properties"].items())

        self.frequency = self._frequency()
        self._later_rates: list[tuple[int, int, int]] = []

    def _frequency(self) -> int:
        """Ticks per second, as announced or as all blocks tell."""
        if self.facts["tsc_frequency"] > 0:
            return int(self.facts["tsc_frequency"])
        ticks, time = self._newest
        return rounded_quotient(ticks * 1_000_000_000, time - self.start_time)

    @property
    def _newest(self) -> tuple[int, int]:
        latest = max(self.blocks, key=lambda block: block.header["end_ticks"])
        return latest.header["end_ticks"], nanoseconds(latest.header["end_time"])

    def know_clock(self, frequency: int, later_rates: Iterable[tuple[int, int, int]]) -> None:
        """What a lake measured while blocks came in: the first frequency, and (ticks since the start, time in ns,
        frequency) from where on it counts with another. Must be near to what all blocks tell."""
        self.frequency, self._later_rates = frequency, list(later_rates)
        ticks, time = self._newest
        assert abs(self.time_of(self.start_ticks + ticks) - time) < CLOCK_ERROR, f"clock of {self.process_id}"

    def _rate_at(self, ticks: int) -> tuple[int, int, int]:
        rate = (0, self.start_time, self.frequency)
        for later in self._later_rates:
            if ticks - self.start_ticks >= later[0]:
                rate = later
        return rate

    def frequency_at(self, ticks: int) -> int:
        """Ticks per second at an absolute counter value."""
        return self._rate_at(ticks)[2]

    def time_of(self, ticks: int) -> int:
        """ns since the epoch of an absolute counter value."""
        origin, time, frequency = self._rate_at(ticks)
        return time + rounded_quotient((ticks - self.start_ticks - origin) * 1_000_000_000, frequency)

    def thread_name(self, stream_id: str) -> str:
        properties = self.streams[stream_id]["properties"]
        names = [properties.get("thread-name"), properties.get("thread-id")]
        return "-".join(names) if None not in names else stream_id

    def blocks_tagged(self, tag: str) -> Iterator[RecordedBlock]:
        return (block for block in self.blocks if tag in self.streams[block.header["stream_id"]]["tags"])


def processes_of(recordings: Iterable[Recording]) -> dict[str, ProcessReference]:
    """Every process of the recordings by id."""
    return {
        process_id: ProcessReference(recording, process_id)
        for recording in recordings
        for process_id in recording.processes
    }


EventRows = Callable[[ProcessReference, RecordedBlock], Iterator[Row]]


def log_rows(process: ProcessReference, block: RecordedBlock) -> Iterator[Row]:
    """(process_id, stream_id, block_id, exe, username, computer, time, target, level, msg, properties,
    process_properties) of each event of a block."""
    before = _origin(process, block)
    for event in block.events:
        described = event.get("desc", event)
        properties = _last_of_each(event.get("properties", []))
        level = LEVELS.get(properties.get("level", ""), described["level"]) if "desc" in event else described["level"]
        target = properties.get("target", described["target"]) if "desc" in event else described["target"]
        message = event["desc"]["fmt_str"] if event["$type"] == "LogStaticStrEvent" else event["msg"]
        time = process.time_of(event["time"])
        yield (*before, time, target, level, message, frozenset(properties.items()), process.properties)


def measure_rows(process: ProcessReference, block: RecordedBlock) -> Iterator[Row]:
    """(process_id, stream_id, block_id, exe, username, computer, time, target, name, unit, value, properties,
    process_properties) of each event of a block."""
    before = _origin(process, block)
    for event in block.events:
        properties = _last_of_each(event.get("properties", []))
        named = {key: properties.get(key, event["desc"][key]) for key in ("target", "name", "unit")}
        value: bytes | str = comparable_double(_double(event["value"]))
        if "Integer" in event["$type"] and named["unit"] == "ticks":
            named["unit"] = "seconds"
            value = in_seconds(event["value"] / process.frequency_at(event["time"]))
        elif named["unit"] == "seconds":
            value = in_seconds(_double(event["value"]))
        time = process.time_of(event["time"])
        yield (
            *before,
            time,
            *(named[key] for key in ("target", "name", "unit")),
            value,
            frozenset(properties.items()),
            process.properties,
        )


def async_event_rows(process: ProcessReference, block: RecordedBlock) -> Iterator[Row]:
    """(stream_id, block_id, time, event_type, span_id, parent_span_id, depth, hash, name, filename, target, line)."""
    for event in block.events:
        if "Async" not in event["$type"]:
            continue
        scope = _scope(event, "span_desc", "span_location")
        yield (
            block.header["stream_id"],
            block.header["block_id"],
            process.time_of(event["time"]),
            "begin" if event["$type"].startswith("Begin") else "end",
            event["span_id"],
            # Senders before 0.12 say neither.
            event.get("parent_span_id", 0),
            event.get("depth", 0),
            scope_hash(scope),
            scope.name,
            scope.filename,
            scope.target,
            scope.line,
        )


def thread_span_rows(process: ProcessReference, stream_id: str) -> Counter[Row]:
    """(id, parent, depth, hash, begin, end, duration, name, target, filename, line) of every span of a thread."""
    blocks = []
    for block in process.blocks:
        if block.header["stream_id"] != stream_id:
            continue
        events = [
            ThreadEvent(
                event["$type"].startswith("Begin"),
                event["time"],
                _scope(event, "thread_span_desc", "thread_span_location"),
                block.header["object_offset"] + position,
            )
            for position, event in enumerate(block.events)
            if "ThreadSpan" in event["$type"] or "ThreadNamedSpan" in event["$type"]
        ]
        begin, end = (process.start_ticks + block.header[key] for key in ("begin_ticks", "end_ticks"))
        blocks.append(ThreadBlock(begin, end, events))
    rows: Counter[Row] = Counter()
    for row in span_rows(process.thread_name(stream_id), blocks):
        begin, end = (process.time_of(ticks) for ticks in (row.begin, row.end))
        times = (begin, end, end - begin)
        rows[(row.id, row.parent, row.depth, scope_hash(row.scope), *times, *row.scope)] += 1
    return rows


def _origin(process: ProcessReference, block: RecordedBlock) -> Row:
    return (
        process.process_id,
        block.header["stream_id"],
        block.header["block_id"],
        *(process.facts[key] for key in ("exe", "username", "computer")),
    )


def _last_of_each(pairs: list[list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = value
    return found


def _double(value: Any) -> float:
    return float(value["$f64"]) if isinstance(value, Mapping) else float(value)


def _scope(event: Mapping[str, Any], described: str, located: str) -> Scope:
    place = event[described] if described in event else event[located]
    return Scope(place["name"] if described in event else event["name"], place["target"], place["file"], place["line"])
