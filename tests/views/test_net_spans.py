"""The view `net_spans`: a recorded session, and made ones whose events are lost, cut and out of order."""

from __future__ import annotations

import struct
from collections import Counter
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from codec.block_maker import BlockMaker, member, reference, udt
from e2e.answers import assert_same_rows, know_clocks
from e2e.recordings import recording
from e2e.reference import processes_of
from query.asking import ask, column
from senders import START_TIME
from views.net_reference import NetSpan, net_spans
from views.traffic import MadeStream, commit_recording

from micromegas._engine import NetSpansBuilder
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError
from micromegas.views.block_source import BlockContext
from micromegas.wire import Block

COLUMNS = (
    "span_id, parent_span_id, depth, kind, name, connection_name, is_outgoing, begin_bits, end_bits, bit_size, "
    "begin_time, end_time"
)
TIME = member("time", "u64", 0, 8)
NET_EVENTS = (
    udt("NetConnectionBeginEvent", 17, TIME, reference("connection_name", 8), member("is_outgoing", "u8", 16, 1)),
    udt("NetConnectionEndEvent", 12, TIME, member("bit_size", "u32", 8, 4)),
    udt("NetObjectBeginEvent", 16, TIME, reference("object_name", 8)),
    udt("NetObjectEndEvent", 12, TIME, member("bit_size", "u32", 8, 4)),
    udt("NetPropertyEvent", 20, TIME, reference("property_name", 8), member("bit_size", "u32", 16, 4)),
    udt("NetRPCBeginEvent", 16, TIME, reference("function_name", 8)),
    udt("NetRPCEndEvent", 12, TIME, member("bit_size", "u32", 8, 4)),
    udt("NetOddEvent", 8, TIME),
)
Event = dict[str, Any]


def packed(maker: BlockMaker, names: dict[str, int], event: Event) -> bytes:
    """The record of an event; texts become dependencies on first use."""
    out = struct.pack("<Q", event["time"])
    for key, value in event.items():
        if key.endswith("_name"):
            if value not in names:
                names[value] = maker.text(value)
            out += struct.pack("<Q", names[value])
    if "is_outgoing" in event:
        out += struct.pack("<B", event["is_outgoing"])
    if "bit_size" in event:
        out += struct.pack("<I", event["bit_size"])
    return out


def block_of(stream: MadeStream, events: list[Event], begin: int, end: int) -> Block:
    maker = stream.maker()
    names: dict[str, int] = {}
    for event in events:
        maker.event(event["$type"], packed(maker, names, event))
    return stream.block(maker, len(events), begin, end)


def random_event(random: Random, time: int) -> Event:
    """Any event after any other: most ends fit nothing, and names repeat."""
    what = random.choice(["Connection", "Object", "RPC"])
    match random.random():
        case roll if roll < 0.35:
            key = {"Connection": "connection_name", "Object": "object_name", "RPC": "function_name"}[what]
            name = random.choice(["", "a", "bé", "a long name" * 9])
            event = {"$type": f"Net{what}BeginEvent", "time": time, key: name}
            return event | ({"is_outgoing": random.choice([0, 1, 255])} if what == "Connection" else {})
        case roll if roll < 0.8:
            return {"$type": f"Net{what}EndEvent", "time": time, "bit_size": random.choice([0, 1, 77, 2**32 - 1])}
    name = random.choice(["p", "q"])
    return {"$type": "NetPropertyEvent", "time": time, "property_name": name, "bit_size": random.randrange(99)}


def rows_in_sql(engine: QueryEngine, process_id: str, **request: Any) -> list[NetSpan]:
    """Rows with times in ns instead of ticks."""
    table = ask(engine, f"SELECT {COLUMNS} FROM view_instance('net_spans', '{process_id}')", **request)
    return [NetSpan(*row) for row in zip(*(column(table, position) for position in range(12)), strict=True)]


def in_nanoseconds(span: NetSpan) -> NetSpan:
    """A span of a made stream, whose ticks are ns."""
    return NetSpan(*list(vars(span).values())[:-2], span.begin + START_TIME, span.end + START_TIME)


def test_recorded_session(lake: Lake, engine: QueryEngine) -> None:
    recorded = recording("unreal_synth")
    commit_recording(lake, recorded, seed=3)
    processes = processes_of([recorded])
    know_clocks(lake.metadata, processes)
    (process,) = processes.values()
    blocks = sorted(process.blocks_tagged("net"), key=lambda block: int(block.header["begin_ticks"]))
    (stream_id,) = {block.header["stream_id"] for block in blocks}
    events = [
        (block.header["object_offset"] + position, event)
        for block in blocks
        for position, event in enumerate(block.events)
    ]
    expected = net_spans(events)
    assert {span.kind for span in expected} == {"connection", "object", "property", "rpc"}
    times = [[process.time_of(ticks) for ticks in (span.begin, span.end)] for span in expected]
    rows = Counter(
        (process.process_id, stream_id, *list(vars(span).values())[:-2], *time)
        for span, time in zip(expected, times, strict=True)
    )
    view = f"view_instance('net_spans', '{process.process_id}')"
    table = ask(engine, f"SELECT process_id, stream_id, {COLUMNS} FROM {view}")
    assert_same_rows(zip(*(column(table, position) for position in range(14)), strict=True), rows, "unreal_synth")


def test_questions_of_dashboards(lake: Lake, engine: QueryEngine) -> None:
    recorded = recording("unreal_synth")
    commit_recording(lake, recorded, seed=4)
    (process_id,) = recorded.processes
    view = f"view_instance('net_spans', '{process_id}')"
    bandwidth = ask(
        engine,
        f"SELECT name, SUM(bit_size)/8 bytes FROM {view} WHERE kind='object' AND is_outgoing "
        "GROUP BY name ORDER BY bytes DESC",
    )
    assert bandwidth.num_rows > 0
    flame = ask(
        engine,
        f"SELECT span_id, parent_span_id, depth, kind, name, begin_bits, end_bits FROM {view} ORDER BY begin_time",
    )
    parents = {-1, *column(flame, "span_id")}
    assert set(column(flame, "parent_span_id")) <= parents


def test_schema(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "net", NET_EVENTS)
    text, wide, time = pa.dictionary(pa.int32(), pa.string()), pa.int64(), pa.timestamp("ns", "+00:00")
    types = [text, text, wide, wide, pa.uint32(), text, text, text, pa.bool_(), wide, wide, wide, time, time]
    names = f"process_id, stream_id, {COLUMNS}".split(", ")
    expected = pa.schema([pa.field(each, kind, nullable=False) for each, kind in zip(names, types, strict=True)])
    sql = f"SELECT * FROM view_instance('net_spans', '{stream.process_id}')"
    assert engine.describe(sql).schema.equals(expected)
    assert ask(engine, sql).schema.equals(expected)


@pytest.mark.parametrize("seed", range(4))
def test_any_events_in_blocks_that_come_in_any_order(lake: Lake, engine: QueryEngine, seed: int) -> None:
    random = Random(seed)
    streams = [MadeStream(lake, "net", NET_EVENTS)]
    streams.append(MadeStream(lake, "net", NET_EVENTS, of=streams[0].process))
    blocks: list[Block] = []
    expected: list[NetSpan] = []
    for stream in streams:
        all_events: list[tuple[int, Event]] = []
        for number in range(8):
            events = [random_event(random, 1000 * number + position) for position in range(random.randrange(60))]
            stream.position += random.choice([0, 0, 5])  # what was dropped before it was sent
            all_events += [(stream.position + position, event) for position, event in enumerate(events)]
            blocks.append(block_of(stream, events, 1000 * number, 1000 * number + 999))
        expected += net_spans(all_events)
    random.shuffle(blocks)
    half = len(blocks) // 2
    streams[0].commit(*blocks[:half])
    rows_in_sql(engine, streams[0].process_id)  # with gaps, which later blocks fill
    streams[0].commit(*blocks[half:])
    rows = rows_in_sql(engine, streams[0].process_id)
    assert Counter(rows) == Counter(map(in_nanoseconds, expected))
    assert column(ask(engine, "SELECT error FROM list_block_errors()")) == []


def test_rows_taken_between_blocks_keep_the_names_of_open_spans(lake: Lake) -> None:
    random = Random(99)
    stream = MadeStream(lake, "net", NET_EVENTS)
    all_events: list[tuple[int, Event]] = []
    for number in range(30):
        events = [random_event(random, 100 * number + position) for position in range(20)]
        all_events += [(stream.position + position, event) for position, event in enumerate(events)]
        stream.commit(block_of(stream, events, 100 * number, 100 * number + 99))
    rows = lake.metadata.blocks(process_id=stream.process_id, order="event")
    context = BlockContext.read(lake.metadata, rows)
    builder = NetSpansBuilder()
    batches = []
    for row in rows:
        assert builder.append(context.source(row, lake.read_payload(row))) == []
        bounds = builder.min_time, builder.max_time
        batch = pa.record_batch(builder.take())
        assert (builder.rows, builder.min_time, builder.max_time) == (0, None, None)
        if batch.num_rows:
            assert bounds == (min(column(batch, "begin_time")), max(column(batch, "end_time")))
            batches.append(batch)
    table = pa.Table.from_batches(batches).drop_columns(["process_id", "stream_id"])
    found = [NetSpan(*row) for row in zip(*(column(table, position) for position in range(12)), strict=True)]
    assert found == list(map(in_nanoseconds, net_spans(all_events)))
    assert len(found) > 100


def test_range_keeps_what_touches_it(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "net", NET_EVENTS)
    events: list[Event] = [
        {"$type": "NetObjectBeginEvent", "time": 10, "object_name": "early"},
        {"$type": "NetObjectEndEvent", "time": 20, "bit_size": 1},
        {"$type": "NetObjectBeginEvent", "time": 20, "object_name": "late"},
        {"$type": "NetPropertyEvent", "time": 25, "property_name": "point", "bit_size": 1},
        {"$type": "NetObjectEndEvent", "time": 30, "bit_size": 1},
    ]
    stream.commit(block_of(stream, events, 0, 40))

    def names(begin: int, end: int) -> set[str]:
        rows = rows_in_sql(engine, stream.process_id, begin=START_TIME + begin, end=START_TIME + end)
        return {row.name for row in rows}

    assert names(0, 9) == set()
    assert names(0, 10) == {"early"}
    assert names(20, 20) == {"early", "late"}
    assert names(21, 24) == {"late"}
    assert names(25, 25) == {"late", "point"}
    assert names(31, 99) == set()


def test_a_broken_event_hides_no_other(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "net", NET_EVENTS)
    maker = stream.maker()
    names: dict[str, int] = {}
    begin = {"$type": "NetObjectBeginEvent", "time": 1, "object_name": "object"}
    maker.event("NetObjectBeginEvent", packed(maker, names, begin))
    maker.event("NetPropertyEvent", struct.pack("<QQI", 2, 4711, 5))
    maker.event("NetOddEvent", struct.pack("<Q", 3))
    maker.event("NetObjectEndEvent", struct.pack("<QI", 4, 9))
    maker.event_bytes += b"\x01cut"
    block = stream.block(maker, 5, 0, 10)
    stream.commit(block)
    (row,) = rows_in_sql(engine, stream.process_id)
    assert (row.name, row.span_id, row.bit_size, row.connection_name, row.is_outgoing) == ("object", 0, 9, "", False)
    errors = ask(engine, "SELECT view_set_name, block_id, error FROM list_block_errors()")
    assert (column(errors, 0), column(errors, 1)) == (["net_spans"], [block.block_id])
    (error,) = column(errors, 2)
    assert "event 1 (NetPropertyEvent): no dependency has the id 4711" in error
    assert "unknown type NetOddEvent" in error
    assert "past the end of the buffer" in error


def test_spans_without_end_are_bounded(lake: Lake, engine: QueryEngine) -> None:
    """A million may be open, and not one more: the stack is what a hostile sender can make us keep."""
    stream = MadeStream(lake, "net", NET_EVENTS)
    maker = stream.maker()
    record = bytes([2]) + struct.pack("<QQ", 1, maker.text("never ends"))
    maker.event_bytes += record * (2**20 + 3)
    maker.event("NetPropertyEvent", struct.pack("<QQI", 2, 1, 5))
    stream.commit(stream.block(maker, 2**20 + 4, 0, 10))
    (row,) = rows_in_sql(engine, stream.process_id)
    assert (row.kind, row.depth, row.parent_span_id) == ("property", 2**20, 2**20 - 1)
    (error,) = column(ask(engine, "SELECT error FROM list_block_errors()"))
    assert error.count("more than 1048576 spans are open") == 3


def test_there_is_no_global_instance(lake: Lake, engine: QueryEngine) -> None:
    for sql in ("SELECT * FROM net_spans", "SELECT * FROM view_instance('net_spans', 'global')"):
        with pytest.raises(QueryError) as refused:
            ask(engine, sql)
        assert refused.value.kind == "invalid"
