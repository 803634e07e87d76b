"""The lake that the examples of the documentation run on: one process `shop`, a second of its life, always the same.

    with example_lake(folder) as lake: …

Its ids are below; SQL of an example names them as `$process`, `$log`, `$metrics`, `$thread`, `$tasks` and `$block`
(the block of the log), see `with_ids`. It holds six log entries (two of them JSON, one with a property), ninety
measures (`frame_time` in ms, `queue_length`), the call trees of three frames of the thread `main`, the second of them
slow, and two asynchronous spans that overlap, of which one has a child. The log is in a partition, the rest is not.
Two more processes, `gateway` and `payment`, sent a trace of three spans by OTLP.
"""

from __future__ import annotations

import json
import string
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import made_traffic as made
from query.traffic import materialize

from micromegas.config import LakeSettings
from micromegas.ingest.otlp import otlp_batch
from micromegas.lake import Lake
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.wire import Batch, Block, Process, Stream
from micromegas.wire.otlp import decode_otlp

IDS = {
    "process": "11111111-1111-4111-8111-111111111111",
    "log": "22222222-2222-4222-8222-222222222222",
    "metrics": "33333333-3333-4333-8333-333333333333",
    "thread": "44444444-4444-4444-8444-444444444444",
    "tasks": "55555555-5555-4555-8555-555555555555",
    "block": "66666666-6666-4666-8666-666666666666",
}
START_NS = 1_767_268_800_000_000_000
"""2026-01-01T12:00:00Z; the log's first entry is 1 ms later."""

MS = 1_000_000
DEBUG, INFO, WARNING, ERROR = 5, 4, 3, 2
ORDER = '{"event": "order", "id": 17, "items": [{"sku": "tea", "price": 4.5}, {"sku": "cup", "price": 12}]}'
LOG = (
    (1, INFO, "shop::start", "shop 1.4.2 starts"),
    (120, INFO, "shop::orders", ORDER),
    (250, DEBUG, "shop::cache", "2 of 2 items found"),
    (380, WARNING, "shop::orders", '{"event": "retry", "id": 17, "attempt": 2}'),
    (510, ERROR, "shop::orders", "payment of order 17 timed out"),
    (900, INFO, "shop::start", "shop stops"),
)  # fmt: skip
PROPERTY_OF_ERROR = ("user_id", "u42")
FRAMES = (
    # begin and end in ms; names are nested by their times
    (100, 116, "frame"), (101, 105, "update"), (106, 115, "render"), (107, 111, "draw"),
    (120, 172, "frame"), (121, 128, "update"), (124, 127, "load"), (129, 171, "render"), (130, 168, "draw"),
    (180, 195, "frame"), (181, 184, "update"), (185, 194, "render"), (186, 190, "draw"),
)  # fmt: skip
TASKS = (
    # id, parent, depth, begin and end in ms
    (1, 0, 0, 110, 480, "order"), (2, 0, 0, 300, 350, "refresh"), (3, 1, 1, 130, 420, "payment"),
)  # fmt: skip


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = (
    # service, id, parent, name, kind (2: server, 3: client), begin and end in ms, status (1: ok, 2: error)
    ("gateway", 1, 0, "POST /orders", 2, 110, 490, 2), ("gateway", 2, 1, "POST /payments", 3, 130, 480, 2),
    ("payment", 3, 2, "POST /payments", 2, 135, 470, 2),
)  # fmt: skip


def with_ids(sql: str) -> str:
    """The SQL with the ids in place of their names."""
    return string.Template(sql).safe_substitute(IDS)


@contextmanager
def example_lake(place: Path | LakeSettings) -> Iterator[Lake]:
    """An open lake, empty before, or below an empty folder, that holds what the module's description says."""
    settings = place if isinstance(place, LakeSettings) else LakeSettings(lake_dir=place)
    with Lake.open(settings) as lake:
        lake.commit(_shop())
        lake.commit(_traced())
        materialize(lake, LOG_ENTRIES)
        yield lake


def _shop() -> Batch:
    process = made.MadeProcess(
        Random(0),
        process_id=IDS["process"],
        exe="/opt/shop/shop",
        username="ann",
        realname="Ann",
        computer="till-3",
        distro="Debian 12",
        cpu_brand="Z80",
        start_time=made.time_text(START_NS),
        properties={"Build": "1.4.2", "environment": "production"},
    )
    streams = [
        _announced("log", "log", made.OBJECTS["log"]),
        _announced("metrics", "metrics", made.OBJECTS["metrics"]),
        _announced("thread", "cpu", made.OBJECTS["cpu"], **{"thread-name": "main", "thread-id": "1"}),
        _announced("tasks", "cpu", _ASYNC_EVENTS, **{"thread-name": "loop", "thread-id": "2"}),
    ]
    blocks = [_log(), _metrics(), _thread(), _tasks()]
    return Batch([Process.decode(process.request().body)], streams, blocks)


def _traced() -> Batch:
    """What the SDKs of two services post to `/ingestion/otlp/v1/traces`."""
    body = {"resourceSpans": [_resource_spans(service) for service in dict.fromkeys(span[0] for span in TRACE)]}
    resources = decode_otlp("traces", json.dumps(body).encode(), is_json=True, max_bytes=1 << 20)
    return otlp_batch("traces", resources, lambda: START_NS)


def _resource_spans(service: str) -> dict[str, Any]:
    spans = [
        {
            "traceId": TRACE_ID,
            "spanId": f"{number:016x}",
            "parentSpanId": f"{parent:016x}" if parent else "",
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(START_NS + begin * MS),
            "endTimeUnixNano": str(START_NS + end * MS),
            "status": {"code": status},
        }
        for owner, number, parent, name, kind, begin, end, status in TRACE
        if owner == service
    ]
    attributes = [{"key": "service.name", "value": {"stringValue": service}}]
    return {"resource": {"attributes": attributes}, "scopeSpans": [{"scope": {"name": "http"}, "spans": spans}]}


_ASYNC_EVENTS = [
    made.udt(
        f"{edge}AsyncSpanEvent",
        36,
        made.reference("span_desc", 0),
        made.member("span_id", "u64", 8),
        made.member("parent_span_id", "u64", 16),
        made.member("time", "i64", 24),
        made.member("depth", "u32", 32, 4),
    )
    for edge in ("Begin", "End")
]


def _announced(name: str, tag: str, objects: list[made.Udt], **properties: str) -> Stream:
    stream = made.MadeStream(IDS["process"], IDS[name], tag, Random(0), properties=properties)
    return Stream.decode(stream.request(objects_metadata=objects).body)


def _block(name: str, dependencies: bytes, events: Sequence[bytes]) -> Block:
    fields: dict[str, Any] = {
        "block_id": IDS["block"] if name == "log" else f"{IDS[name][:-1]}b",
        "stream_id": IDS[name],
        "process_id": IDS["process"],
        "begin_time": made.time_text(START_NS),
        "end_time": made.time_text(START_NS + 1000 * MS),
        "begin_ticks": 0,
        "end_ticks": 1000 * MS,
        "payload": {"dependencies": made.frame(dependencies), "objects": made.frame(b"".join(events))},
        "object_offset": 0,
        "nb_objects": len(events),
    }
    return Block.decode(made.block_request(fields).body)


class _Texts:
    """Numbers texts, and keeps the records that announce them."""

    def __init__(self) -> None:
        self.records = b""
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = 1 + len(self._numbers)
            self.records += made.text_dependency(self._numbers[text], text)
        return self._numbers[text]


def _ticks(ms: float) -> int:
    return made.START_TICKS + int(ms * MS)


def _log() -> Block:
    texts = _Texts()
    descriptions: dict[tuple[int, str], int] = {}
    records = b""
    events = []
    for ms, level, target, message in LOG:
        if (level, target) not in descriptions:
            descriptions[level, target] = 100 + len(descriptions)
            template, target_number = texts.number("{}"), texts.number(target)
            records += struct.pack("<BQQQII", 1, descriptions[level, target], template, target_number, level, 12)
        description = struct.pack("<Q", descriptions[level, target])
        time_and_text = struct.pack("<q", _ticks(ms)) + made.encoded_string(message)
        if level == ERROR:
            name, value = (texts.number(text) for text in PROPERTY_OF_ERROR)
            records += made.property_set(200, [(name, value)])
            events.append(made.dynamic(1, description + struct.pack("<Q", 200) + time_and_text))
        else:
            events.append(made.dynamic(0, description + time_and_text))
    return _block("log", texts.records + records, events)


def _metrics() -> Block:
    texts = _Texts()
    units = {"frame_time": "ms", "queue_length": "count"}
    numbers = {name: 100 + index for index, name in enumerate(units)}
    records = b"".join(
        struct.pack("<BQQQQ", 1, numbers[name], texts.number(name), texts.number(unit), texts.number("shop::metrics"))
        for name, unit in units.items()
    )
    measures = [(10 * index, "frame_time", 14.0 + index * 7 % 5 + 30.0 * (index == 40)) for index in range(60)]
    measures += [(5 + 30 * index, "queue_length", float(index * 3 % 8)) for index in range(30)]
    events = [struct.pack("<BQdq", 0, numbers[name], value, _ticks(ms)) for ms, name, value in sorted(measures)]
    return _block("metrics", texts.records + records, events)


def _thread() -> Block:
    texts = _Texts()
    scopes, numbers = _scopes([name for *_, name in FRAMES], texts)
    edges = [(begin, 0, -end, name) for begin, end, name in FRAMES] + [
        (end, -1, -begin, name) for begin, end, name in FRAMES
    ]
    events = [struct.pack("<BQq", -is_end, numbers[name], _ticks(ms)) for ms, is_end, _, name in sorted(edges)]
    return _block("thread", texts.records + scopes, events)


def _tasks() -> Block:
    texts = _Texts()
    scopes, numbers = _scopes([name for *_, name in TASKS], texts)
    edges = [(task[3], 0, task) for task in TASKS] + [(task[4], 1, task) for task in TASKS]
    events = [
        struct.pack("<BQQQqI", is_end, numbers[name], number, parent, _ticks(ms), depth)
        for ms, is_end, (number, parent, depth, _, _, name) in sorted(edges)
    ]
    return _block("tasks", texts.records + scopes, events)


def _scopes(names: Sequence[str], texts: _Texts) -> tuple[bytes, dict[str, int]]:
    numbers = {name: 100 + index for index, name in enumerate(dict.fromkeys(names))}
    records = b"".join(
        struct.pack(
            "<BQQQQI", 1, number, texts.number(name), texts.number("shop"), texts.number("shop.py"), 10 + number
        )
        for name, number in numbers.items()
    )
    return records, numbers
