"""Blocks of a few kilobytes on the wire that would take a builder hours or all the memory there is."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from codec.block_maker import BlockMaker, member, reference, text, udt
from engine.test_builder_problems import LOG_TYPES, METRIC_TYPES, source
from otlp_data.blocks import source as otlp_source
from otlp_data.making import varint

from micromegas._engine import (
    AsyncEventsBuilder,
    AsyncSpansBuilder,
    LogEntriesBuilder,
    MeasuresBuilder,
    NetSpansBuilder,
    OtelSpansBuilder,
    ThreadSpansBuilder,
)

LONG = "x" * (1 << 20)
TIME = member("time", "i64", 8, 8)
SPAN_TYPES = (
    udt("BeginThreadSpanEvent", 16, reference("thread_span_desc", 0), TIME),
    udt("EndThreadSpanEvent", 16, reference("thread_span_desc", 0), TIME),
    udt("BeginAsyncSpanEvent", 24, reference("span_desc", 0), TIME, member("span_id", "u64", 16, 8)),
)
NET_TYPES = (udt("NetObjectBeginEvent", 16, reference("object_name", 0), TIME),)


def test_ends_that_fit_none_of_a_million_open_spans_are_dropped_at_once() -> None:
    """As many open spans as there may be, and as many ends: to look through the ones for each other is 10^12."""
    many = 1 << 20
    maker = BlockMaker(SPAN_TYPES)
    begun, ended = maker.span_description("begun", "t", 1), maker.span_description("ended", "t", 1)
    maker.event_bytes += struct.pack("<BQq", 0, begun, 100) * many
    maker.event_bytes += struct.pack("<BQq", 1, ended, 101) * many
    maker.event_bytes += struct.pack("<BQq", 1, begun, 102) * 2
    builder = ThreadSpansBuilder("main")
    (problem,) = builder.append(source(maker))
    assert f"{many} begins and ends of spans did not fit" in problem
    rows = pa.record_batch(builder.finish())
    assert rows.num_rows == many + 1
    ends = rows["end"].cast(pa.int64())
    assert ends[-1].as_py() == ends[-2].as_py() == 1_000_002
    assert ends[-3].as_py() == 1_010_000


def test_an_end_finds_its_span_in_the_part_before() -> None:
    maker = BlockMaker(SPAN_TYPES)
    outer, inner = maker.span_description("outer", "t", 1), maker.span_description("inner", "t", 1)
    for kind, scope, time in [(0, outer, 100), (0, inner, 101), (0, inner, 102)]:
        maker.event_bytes += struct.pack("<BQq", kind, scope, time)
    builder = ThreadSpansBuilder("main")
    assert builder.append(source(maker)) == []
    _, state, _, _ = builder.finish_part((0, 0))
    later = BlockMaker(SPAN_TYPES)
    inner, outer = later.span_description("inner", "t", 1), later.span_description("outer", "t", 1)
    for scope, time in [(inner, 103), (inner, 104), (inner, 105), (outer, 106)]:
        later.event_bytes += struct.pack("<BQq", 1, scope, time)
    builder = ThreadSpansBuilder("main", state)
    (problem,) = builder.append(source(later))
    assert "1 begins and ends" in problem
    rows = pa.record_batch(builder.finish())
    named = zip(rows["name"].to_pylist(), rows["end"].cast(pa.int64()).to_pylist(), strict=True)
    assert sorted(named) == [
        ("inner", 1_000_003),
        ("inner", 1_000_004),
        ("main", 1_010_000),
        ("outer", 1_000_006),
    ]


def long_log_targets() -> BlockMaker:
    maker = BlockMaker(LOG_TYPES)
    message, target = maker.text("m"), maker.text(LONG)
    for _ in range(500):
        description = maker.dependency("LogMetadataRecord", struct.pack("<3QI", message, target, message, 4))
        maker.event("LogStaticStrEvent", struct.pack("<Qq", description, 0))
    return maker


def long_metric_names() -> BlockMaker:
    maker = BlockMaker(METRIC_TYPES)
    name, unit = maker.text(LONG), maker.text("u")
    for _ in range(500):
        description = maker.dependency("MetricMetadataDependency", struct.pack("<3Q", name, unit, unit))
        maker.event("IntegerMetricEvent", struct.pack("<QQq", description, 1, 0))
    return maker


def long_span_names() -> BlockMaker:
    maker = BlockMaker(SPAN_TYPES)
    name, target = maker.text(LONG), maker.text("t")
    for index in range(500):
        description = maker.dependency("SpanRecord", struct.pack("<3QI", name, target, target, 1))
        maker.event("BeginThreadSpanEvent", struct.pack("<Qq", description, 100))
        maker.event("BeginAsyncSpanEvent", struct.pack("<QqQ", description, 100, index))
    return maker


@pytest.mark.parametrize(
    ("builder", "block"),
    [
        (LogEntriesBuilder, long_log_targets),
        (MeasuresBuilder, long_metric_names),
        (lambda: ThreadSpansBuilder("main"), long_span_names),
        (AsyncEventsBuilder, long_span_names),
        (AsyncSpansBuilder, long_span_names),
    ],
)
def test_a_long_text_is_looked_through_so_many_times_only(
    builder: Callable[[], Any], block: Callable[[], BlockMaker]
) -> None:
    """The columns hold it once, but each description that refers to it is another one to find that out for."""
    problems = builder().append(source(block()))
    assert re.search(r"the block's values exceed 13\d{7} bytes", problems[0])
    assert re.search(r": 3\d\d more problems", problems[-1])


def test_a_property_set_that_is_too_large_is_looked_through_once() -> None:
    maker = BlockMaker(LOG_TYPES)
    value = maker.text(LONG)
    pairs = [part for number in range(200) for part in (maker.text(str(number)), value)]
    many = maker.dependency("PropertySetDependency", struct.pack(f"<I{len(pairs)}Q", len(pairs) // 2, *pairs))
    description, few = maker.log_description("f", "t", 4), maker.properties(("a", "b"))
    for properties in [many, few, many, many]:
        maker.event("TaggedLogString", struct.pack("<QQq", description, properties, 0) + text("m"))
    builder = LogEntriesBuilder()
    first, *others = builder.append(source(maker))
    assert "the block's values exceed" in first
    assert [re.sub(r"\d+", "#", problem.split(": ")[-1]) for problem in others] == [
        "property set # was left out before"
    ] * 2
    assert builder.rows == 1


def long_async_names() -> BlockMaker:
    maker = BlockMaker(SPAN_TYPES)
    description = maker.span_description(LONG, "t", 1)
    for index in range(64):
        maker.event("BeginAsyncSpanEvent", struct.pack("<QqQ", description, 100, index))
    return maker


def long_net_names() -> BlockMaker:
    maker = BlockMaker(NET_TYPES)
    name = maker.text(LONG)
    for _ in range(64):
        maker.event("NetObjectBeginEvent", struct.pack("<Qq", name, 100))
    return maker


@pytest.mark.parametrize(
    ("builder", "block"), [(AsyncSpansBuilder, long_async_names), (NetSpansBuilder, long_net_names)]
)
def test_what_goes_on_is_handed_on_with_its_name_told_once(builder: Any, block: Callable[[], BlockMaker]) -> None:
    """A million open spans of one long name would be a terabyte."""
    before = builder()
    assert before.append(source(block())) == []
    state = before.state()
    assert len(LONG) < len(state) < len(LONG) + 20_000
    after = builder(state)
    assert after.state() == state
    # rows that are taken leave their texts to those that go on
    assert pa.record_batch(after.take()).num_rows == 0
    assert after.state() == state
    if builder is AsyncSpansBuilder:
        rows = pa.record_batch(after.unpaired())
        assert rows["span_id"].to_pylist() == list(range(64))
        assert rows["name"].dictionary.to_pylist() == [LONG]


def resource_of(scope: bytes) -> bytes:
    return b"\x12" + varint(len(scope)) + scope


def test_two_bytes_an_attribute_are_too_many_attributes() -> None:
    attributes = b"\x32\x00" * 100_001
    records = [b"\x12" + varint(len(record)) + record for record in (attributes, attributes[2:], b"")]
    builder = LogEntriesBuilder()
    (problem,) = builder.append(otlp_source("logs", resource_of(b"".join(records))))
    assert problem.endswith("event 0 (LogRecord): more than 100000 attributes")
    assert builder.rows == 2
    instrumentation = b"\x1a\x00" * 100_001
    scope = b"\x0a" + varint(len(instrumentation)) + instrumentation + records[-1]
    builder = LogEntriesBuilder()
    problems = builder.append(otlp_source("logs", resource_of(scope)))
    assert "scope: more than 100000 attributes" in problems[0]
    assert builder.rows == 0


def test_the_names_of_a_process_are_not_repeated_in_spans_without_bound() -> None:
    span = b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
    block = otlp_source("traces", resource_of((b"\x12" + varint(len(span)) + span) * 200))
    builder = OtelSpansBuilder()
    assert builder.append(block) == []
    problems = builder.append(replace(block, exe=LONG))
    assert "the block's values exceed" in problems[0]
    assert builder.rows == 200 + 128
