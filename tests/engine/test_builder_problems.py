"""Blocks that no sender makes: what can be read becomes a row, everything else is told of, nothing raises."""

from __future__ import annotations

import re
import struct
from types import SimpleNamespace
from typing import Any

import cbor2
import lz4.frame
import pyarrow as pa
import pytest
from codec.block_maker import (
    HANDLE,
    STRING_ID,
    BlockMaker,
    member,
    reference,
    text,
    udt,
)
from codec.test_mutations import blocks as recorded_blocks
from codec.test_mutations import mutated
from engine.jsonb_reference import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas._engine import AsyncEventsBuilder, LogEntriesBuilder, MeasuresBuilder, ThreadSpansBuilder

LOG_TYPES = (
    udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "i64", 8, 8)),
    udt("LogStringEvent", 0),
    udt("LogStringEventV2", 0),
    udt("LogStringInteropEventV2", 0),
    udt("TaggedLogString", 0),
    udt("TaggedLogInteropEvent", 0),
    udt("FutureEvent", 0),
    udt("FutureFixed", 3),
    HANDLE,
    STRING_ID,
)
METRIC_TYPES = (
    udt(
        "IntegerMetricEvent",
        24,
        reference("desc", 0),
        member("value", "u64", 8, 8),
        member("time", "i64", 16, 8),
    ),
    udt(
        "FloatMetricEvent",
        24,
        member("value", "f64", 0, 8),
        reference("desc", 8),
        member("time", "uint64", 16, 8),
    ),
    udt(
        "TaggedIntegerMetricEvent",
        32,
        reference("desc", 0),
        reference("properties", 8),
        member("value", "i64", 16, 8),
        member("time", "i64", 24, 8),
    ),
)


def source(maker: BlockMaker | None = None, **changes: Any) -> SimpleNamespace:
    maker = maker or BlockMaker(())
    dependencies_metadata, objects_metadata = maker.metadata()
    fields: dict[str, Any] = {
        "process_id": "p",
        "stream_id": "s",
        "block_id": "b",
        "insert_time": 1,
        "exe": "e",
        "username": "u",
        "computer": "c",
        "process_properties": {"k": "v"},
        "start_time": 1_000_000,
        "start_ticks": 100,
        "frequency": 1_000_000_000,
        "begin_ticks": 0,
        "end_ticks": 10_000,
        "object_offset": 0,
        "dependencies_metadata": dependencies_metadata,
        "objects_metadata": objects_metadata,
        "payload": maker.payload(),
    }
    return SimpleNamespace(**(fields | changes))


def rows(builder: Any) -> list[dict[str, Any]]:
    batch = pa.record_batch(builder.take())
    batch.validate(full=True)
    names = batch.schema.names
    plain = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in batch.columns
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True)]


def only(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def test_legacy_and_tagged_logs() -> None:
    maker = BlockMaker(LOG_TYPES)
    description = maker.log_description("format {}", "from.description", 4)
    target = maker.text("from.event")
    plain = maker.properties(("zone", "b"), ("a", ""), ("zone", "last"))
    override = maker.properties(("target", "from.property"), ("level", "fatal"))
    unknown_level = maker.properties(("level", "fatal"), ("level", "FATAL"))
    maker.event("LogStaticStrEvent", struct.pack("<Qq", description, 100))
    maker.event("LogStringEvent", struct.pack("<Qq", description, 101) + b"to the \xff end")
    maker.event("LogStringInteropEventV2", struct.pack("<qIQQ", 102, 6, target, 0) + b"bare")
    maker.event("TaggedLogString", struct.pack("<QQq", description, plain, 103) + text("tagged"))
    maker.event("TaggedLogString", struct.pack("<QQq", description, override, 104) + text("overridden"))
    maker.event("TaggedLogString", struct.pack("<QQq", description, unknown_level, 99) + text("odd level"))
    maker.event("TaggedLogInteropEvent", struct.pack("<qBQQQ", 105, 2, target, 0, override) + text("interop"))
    builder = LogEntriesBuilder()
    assert builder.append(source(maker)) == []
    assert (builder.min_time, builder.max_time) == (999_999, 1_000_005)
    found = rows(builder)
    assert [only(row, "time", "target", "level", "msg") for row in found] == [
        (1_000_000, "from.description", 4, "format {}"),
        (1_000_001, "from.description", 4, "to the \ufffd end"),
        (1_000_002, "from.event", 6, "bare"),
        (1_000_003, "from.description", 4, "tagged"),
        (1_000_004, "from.property", 1, "overridden"),
        (999_999, "from.description", 4, "odd level"),
        # only events with a description have one that a property could replace
        (1_000_005, "from.event", 2, "interop"),
    ]
    overriding = encode({"target": "from.property", "level": "fatal"})
    assert [row["properties"] for row in found] == [
        *[encode({})] * 3,
        encode({"a": "", "zone": "last"}),
        overriding,
        encode({"level": "FATAL"}),
        overriding,
    ]
    assert {row["process_properties"] for row in found} == {encode({"k": "v"})}


def test_units_and_overrides_of_measures() -> None:
    maker = BlockMaker(METRIC_TYPES)
    ticks = maker.metric_description("duration", "ticks", "t")
    count = maker.metric_description("number", "count", "t")
    maker.event("IntegerMetricEvent", struct.pack("<QQq", ticks, 2**64 - 1, 100))
    maker.event("FloatMetricEvent", struct.pack("<dQq", 5.0, ticks, 100))
    as_ticks = maker.properties(("unit", "ticks"), ("name", "n"), ("target", "x"))
    as_count = maker.properties(("unit", "count"))
    maker.event("TaggedIntegerMetricEvent", struct.pack("<QQqq", count, as_ticks, -500, 100))
    maker.event("TaggedIntegerMetricEvent", struct.pack("<QQqq", ticks, as_count, 7, 100))
    maker.event("FloatMetricEvent", struct.pack("<dQq", float("nan"), count, 100))
    builder = MeasuresBuilder()
    assert builder.append(source(maker, frequency=1000)) == []
    found = [only(row, "target", "name", "unit", "value") for row in rows(builder)]
    assert found[:4] == [
        ("t", "duration", "seconds", (2**64 - 1) / 1000),
        ("t", "duration", "ticks", 5.0),
        ("x", "n", "seconds", -0.5),
        ("t", "duration", "count", 7.0),
    ]
    assert repr(found[4]) == "('t', 'number', 'count', nan)"


def test_bad_events_are_left_out_one_by_one() -> None:
    maker = BlockMaker(LOG_TYPES)
    description = maker.log_description("f", "t", 4)
    a_text = maker.text("no description")
    no_set = struct.pack("<QQq", description, a_text, 0)
    for number, (name, body) in enumerate(
        [
            ("LogStringEventV2", struct.pack("<Qq", 999, 0) + text("unknown id")),
            ("LogStringEventV2", struct.pack("<Qq", a_text, 0) + text("id of a text")),
            ("LogStringEventV2", struct.pack("<Qq", description, 0) + text("x")[:-1]),
            ("LogStringEventV2", b"short"),
            ("TaggedLogString", no_set + text("properties are a text")),
            ("LogStaticStrEvent", struct.pack("<Qq", 999, 0)),
            ("FutureEvent", b"?"),
            ("FutureFixed", b"???"),
            ("FutureEvent", b"??"),
        ]
    ):
        maker.event(name, body)
        maker.event("LogStringEventV2", struct.pack("<Qq", description, number) + text(f"good {number}"))
    builder = LogEntriesBuilder()
    problems = builder.append(source(maker))
    assert [row["msg"] for row in rows(builder)] == [f"good {number}" for number in range(9)]
    place = "block b of stream s: "
    assert all(problem.startswith(place) for problem in problems)
    assert [problem.removeprefix(place) for problem in problems] == [
        "event 0 (LogStringEventV2): no dependency has the id 999",
        "event 2 (LogStringEventV2): dependency 4 is no object",
        "event 4 (LogStringEventV2): text: length 1 past the end of the record (0 bytes left)",
        "event 6 (LogStringEventV2): length 8 past the end of the record (5 bytes left)",
        "event 8 (TaggedLogString): dependency 4 is no property set",
        "event 10 (LogStaticStrEvent): no dependency has the id 999",
        "2 events of unknown type FutureEvent",
        "1 events of unknown type FutureFixed",
    ]


def test_events_before_a_corrupt_record_stay() -> None:
    maker = BlockMaker(LOG_TYPES)
    description = maker.log_description("f", "t", 4)
    for number in range(3):
        maker.event("LogStringEventV2", struct.pack("<Qq", description, number) + text(str(number)))
    maker.event_bytes += b"\x02\xff\xff\xff\xff"
    maker.event("LogStringEventV2", struct.pack("<Qq", description, 9) + text("lost"))
    builder = LogEntriesBuilder()
    (problem,) = builder.append(source(maker))
    assert "LogStringEventV2: length 4294967295 past the end of the buffer" in problem
    neighbour = BlockMaker(LOG_TYPES)
    description = neighbour.log_description("f", "t", 4)
    neighbour.event("LogStaticStrEvent", struct.pack("<Qq", description, 0))
    assert builder.append(source(neighbour, block_id="b2", exe="other")) == []
    assert [only(row, "block_id", "exe", "msg") for row in rows(builder)] == [
        *(("b", "e", str(number)) for number in range(3)),
        ("b2", "other", "f"),
    ]


@pytest.mark.parametrize(
    "make", [LogEntriesBuilder, MeasuresBuilder, AsyncEventsBuilder, lambda: ThreadSpansBuilder("t")]
)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "otlp/v1/traces"}, "format `otlp/v1/traces` cannot be read, only `micromegas-transit`"),
        ({"frequency": 0}, "invalid frequency 0"),
        ({"frequency": -1}, "invalid frequency -1"),
        ({"payload": b""}, "payload: the body ends inside an item (at byte 0)"),
        ({"payload": b"\xa0"}, "payload: key `dependencies` is missing"),
        ({"objects_metadata": b"\xf6"}, "objects_metadata: a simple value where an array must be (before byte 1)"),
        ({"dependencies_metadata": b"x" * (2 << 20)}, "dependencies_metadata: metadata of 2097152 bytes"),
    ],
)
def test_unreadable_blocks(make: Any, changes: dict[str, Any], expected: str) -> None:
    builder = make()
    (problem,) = builder.append(source(**changes))
    assert problem.startswith(f"block b of stream s: {expected}")
    assert builder.rows == 0
    assert builder.append(source(format="micromegas-transit")) == []


def test_many_problems_are_counted() -> None:
    maker = BlockMaker(LOG_TYPES)
    for _ in range(1000):
        maker.event("LogStaticStrEvent", struct.pack("<Qq", 1, 0))
    problems = LogEntriesBuilder().append(source(maker))
    assert len(problems) == 17
    assert problems[-1] == "block b of stream s: 984 more problems"


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ((udt("LogStaticStrEvent", 16, reference("desc", 0)),), "member time is missing"),
        ((udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "f64", 8, 8)),), "is not an integer of 8"),
        ((udt("LogStaticStrEvent", 16, member("desc", "u64", 0, 8), member("time", "i64", 8, 8)),), "not a reference"),
        ((udt("LogStaticStrEvent", 16, member("desc", "LogStaticStrEvent", 0, 16)),), "nested deeper than 8"),
    ],
)
def test_layouts_that_tell_no_row(types: tuple[dict[str, Any], ...], problem: str) -> None:
    maker = BlockMaker((*types, udt("LogStringEventV2", 0)))
    description = maker.log_description("f", "t", 4)
    maker.event("LogStaticStrEvent", struct.pack("<Qq", description, 0))
    maker.event("LogStringEventV2", struct.pack("<Qq", description, 0) + text("good"))
    builder = LogEntriesBuilder()
    (told,) = builder.append(source(maker))
    assert problem in told
    assert [row["msg"] for row in rows(builder)] == ["good"]


def test_absurd_ticks_saturate() -> None:
    maker = BlockMaker(LOG_TYPES)
    description = maker.log_description("f", "t", 0xFFFFFFFF)
    for ticks in (2**63 - 1, -(2**63)):
        maker.event("LogStaticStrEvent", struct.pack("<Qq", description, ticks))
    builder = LogEntriesBuilder()
    assert builder.append(source(maker, start_ticks=-(2**63), frequency=1)) == []
    assert [only(row, "time", "level") for row in rows(builder)] == [(2**63 - 1, 2**31 - 1), (1_000_000, 2**31 - 1)]


def test_senders_of_other_days_in_async_events() -> None:
    types = (
        udt(
            "BeginAsyncSpanEvent",
            24,
            reference("span_desc", 0),
            member("span_id", "u64", 8, 8),
            member("time", "i64", 16, 8),
        ),
        udt("BeginThreadSpanEvent", 16, reference("thread_span_desc", 0), member("time", "i64", 8, 8)),
    )
    maker = BlockMaker(types)
    span = maker.span_description("work", "mod", 7)
    maker.event("BeginAsyncSpanEvent", struct.pack("<QQq", span, 2**64 - 1, 100))
    maker.event("BeginThreadSpanEvent", struct.pack("<Qq", span, 100))
    builder = AsyncEventsBuilder()
    assert builder.append(source(maker)) == []
    (row,) = rows(builder)
    assert only(row, "event_type", "span_id", "parent_span_id", "depth", "name", "filename", "target", "line") == (
        "begin",
        -1,
        0,
        0,
        "work",
        "file.py",
        "mod",
        7,
    )


def amplifying_block(kind: str) -> BlockMaker:
    """A block of a few kilobytes on the wire whose rows would take gigabytes."""
    maker = BlockMaker(LOG_TYPES)
    long_text = "x" * (1 << 20)
    if kind == "messages":
        description = maker.log_description(long_text, "t", 4)
        for _ in range(20_000):
            maker.event("LogStaticStrEvent", struct.pack("<Qq", description, 0))
        return maker
    value = maker.text(long_text)
    names = [maker.text(str(number)) for number in range(5000)]
    pairs = [part for name in names for part in (name, value)]
    many = maker.dependency("PropertySetDependency", struct.pack(f"<I{len(pairs)}Q", len(names), *pairs))
    description = maker.log_description("f", "t", 4)
    maker.event("TaggedLogString", struct.pack("<QQq", description, many, 0) + text("m"))
    return maker


@pytest.mark.parametrize("kind", ["messages", "properties"])
def test_small_blocks_make_no_huge_columns(kind: str) -> None:
    builder = LogEntriesBuilder()
    problems = builder.append(source(amplifying_block(kind)))
    assert re.search(r"the block's values exceed 13\d{7} bytes", problems[0])
    assert builder.estimated_bytes < (1 << 28)
    if kind == "messages":
        for _ in range(7):
            assert builder.append(source(amplifying_block(kind))) != []
        with pytest.raises(ValueError, match=r"in one column: take\(\) before the next block"):
            builder.append(source(amplifying_block(kind)))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_blocks(data: st.DataObject) -> None:
    dependencies_metadata, objects_metadata, dependencies, objects = data.draw(st.sampled_from(recorded_blocks()))
    buffers = {"dependencies": dependencies, "objects": objects}
    where = data.draw(st.sampled_from(["dependencies", "objects", "dependencies_metadata", "objects_metadata"]))
    if where in buffers:
        buffers[where] = data.draw(mutated(buffers[where]))
    changes = {"dependencies_metadata": dependencies_metadata, "objects_metadata": objects_metadata}
    if where in changes:
        changes[where] = data.draw(mutated(changes[where]))
    block = source(
        payload=cbor2.dumps({name: lz4.frame.compress(buffer) for name, buffer in buffers.items()}),
        start_ticks=data.draw(st.sampled_from([0, 2**63 - 1, -(2**63)])),
        begin_ticks=data.draw(st.sampled_from([0, 2**63 - 1, -(2**63)])),
        object_offset=data.draw(st.sampled_from([0, 2**63 - 1])),
        frequency=data.draw(st.sampled_from([1, 10**9, 2**63 - 1])),
        **changes,
    )
    for builder in (LogEntriesBuilder(), MeasuresBuilder(), AsyncEventsBuilder()):
        builder.append(block)
        pa.record_batch(builder.take()).validate(full=True)
    spans = ThreadSpansBuilder("main")
    spans.append(block)
    pa.record_batch(spans.finish()).validate(full=True)
