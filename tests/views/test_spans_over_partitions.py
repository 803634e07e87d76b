"""Spans are whole: however blocks are cut into partitions and in whatever order they come, the rows are those of one
build over everything, as plain references make them."""

from __future__ import annotations

import math
import statistics
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from codec.block_maker import BlockMaker, member, reference, udt
from engine.call_tree_reference import THREAD, Event, Scope, rows
from query.asking import ask, column
from senders import START_TIME
from views.net_reference import net_spans
from views.test_net_spans import NET_EVENTS, block_of, in_nanoseconds, random_event, rows_in_sql
from views.traffic import MadeStream

import micromegas.views.thread_spans
from micromegas.lake import BlockRow, Lake
from micromegas.query import QueryEngine
from micromegas.query.carried_partitions import CarriedLook
from micromegas.views.async_spans import ASYNC_SPANS
from micromegas.views.net_spans import NET_SPANS
from micromegas.views.thread_spans import THREAD_SPANS
from micromegas.wire import Block

TIME = member("time", "i64", 8, 8)
THREAD_EVENTS = (
    udt("BeginThreadSpanEvent", 16, reference("thread_span_desc", 0), TIME),
    udt("EndThreadSpanEvent", 16, reference("thread_span_desc", 0), TIME),
)
ASYNC = (
    reference("span_desc", 0),
    TIME,
    member("span_id", "u64", 16, 8),
    member("parent_span_id", "u64", 24, 8),
    member("depth", "u32", 32, 4),
)
ASYNC_EVENTS = (udt("BeginAsyncSpanEvent", 36, *ASYNC), udt("EndAsyncSpanEvent", 36, *ASYNC))
SCOPES = [("load", "app", 1), ("draw", "app", 2), ("wait", "lib", 3)]
EVER = {"begin": 0, "end": 2**62}


@pytest.fixture(params=[0, 25], ids=["as small as they come", "of some events"])
def small_partitions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions of few events, as otherwise only those of millions are parted."""
    monkeypatch.setattr(CarriedLook, "small_objects", request.param)
    monkeypatch.setattr(CarriedLook, "max_objects", 60)


def scope_of(number: int) -> Scope:
    name, target, line = SCOPES[number]
    return name, target, "file.py", line


def thread_block(stream: MadeStream, events: Sequence[tuple[bool, int, int]], begin: int, end: int) -> Block:
    """Events are (is a begin, number of scope, ticks)."""
    maker = stream.maker()
    descriptions = [maker.span_description(*scope) for scope in SCOPES]
    for is_begin, scope, ticks in events:
        name = "BeginThreadSpanEvent" if is_begin else "EndThreadSpanEvent"
        maker.event(name, struct.pack("<Qq", descriptions[scope], ticks))
    return stream.block(maker, len(events), begin, end)


class Thread:
    """A thread whose blocks are made in the order of time, and the events that were put into them."""

    def __init__(self, lake: Lake) -> None:
        self.stream = MadeStream(lake, "cpu", THREAD_EVENTS)
        self.made: dict[str, tuple[int, int, list[Event]]] = {}

    def block(self, events: Sequence[tuple[bool, int, int]], begin: int, end: int) -> Block:
        first = self.stream.position
        numbered: list[Event] = [
            ("begin" if is_begin else "end", ticks, scope_of(scope), first + place)
            for place, (is_begin, scope, ticks) in enumerate(events)
        ]
        block = thread_block(self.stream, events, begin, end)
        self.made[block.block_id] = (begin, end, numbered)
        return block

    def expected(self, blocks: Sequence[Block]) -> tuple[Counter[tuple[Any, ...]], int]:
        known = sorted(self.made[each.block_id] for each in blocks)
        found, anomalies = rows(known)
        named = [(*row[:5], (self.stream.stream.stream_id, "", "", 0) if row[5] == THREAD else row[5]) for row in found]
        return Counter(named), anomalies

    def in_sql(self, engine: QueryEngine, **request: Any) -> Counter[tuple[Any, ...]]:
        sql = (
            "SELECT id, parent, depth, begin, end, duration, name, target, filename, line "
            f"FROM view_instance('thread_spans', '{self.stream.stream.stream_id}')"
        )
        table = ask(engine, sql, **(request or EVER))
        found: Counter[tuple[Any, ...]] = Counter()
        for identity, parent, depth, begin, end, duration, *scope in zip(
            *(column(table, place) for place in range(10)), strict=True
        ):
            assert duration == end - begin
            found[identity, parent, depth, begin - START_TIME, end - START_TIME, tuple(scope)] += 1
        return found


def random_thread_blocks(random: Random, thread: Thread, count: int) -> list[Block]:
    """Most spans are whole over many blocks; some begins and ends are lost, some blocks are, and clocks are odd."""
    blocks: list[Block] = []
    open_scopes: list[int] = []
    now = 1000
    for _ in range(count):
        events: list[tuple[bool, int, int]] = []
        begin = now
        for _ in range(random.randrange(30)):
            now += random.randrange(3)
            if open_scopes and random.random() < 0.5:
                events.append((False, open_scopes.pop(), now))
            else:
                scope = random.randrange(len(SCOPES))
                events.append((True, scope, now))
                open_scopes.append(scope)
            if random.random() < 0.05:
                events.pop()
                thread.stream.position += random.randrange(2)
            if random.random() < 0.02:
                events.append((random.random() < 0.5, random.randrange(len(SCOPES)), now + random.choice([-9, 9])))
        block = thread.block(events, begin, now)
        if random.random() < 0.1:
            now += 5  # a gap: what came between was lost
        if random.random() > 0.05:
            blocks.append(block)
    return blocks


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("small_partitions")
def test_thread_spans_of_blocks_in_any_order(lake: Lake, engine: QueryEngine, seed: int) -> None:
    random = Random(seed)
    thread = Thread(lake)
    waiting = random_thread_blocks(random, thread, 24)
    if seed:
        # Mostly in order, as senders are, with some that come late.
        waiting.sort(key=lambda block: block.begin_ticks + random.choice([0, 0, 0, 60 * seed]))
    there: list[Block] = []
    while waiting:
        arrived = [waiting.pop(0) for _ in range(min(len(waiting), random.randrange(1, 6)))]
        thread.stream.commit(*arrived)
        there += arrived
        expected, _ = thread.expected(there)
        if random.random() < 0.5:
            engine._just_in_time.advance(THREAD_SPANS, thread.stream.stream.stream_id)
            assert_ranges_are_whole(engine, thread, expected, random, count=1)
        assert thread.in_sql(engine) == expected
    stream_id = thread.stream.stream.stream_id
    partitions = lake.metadata.partitions("thread_spans", stream_id)
    assert len(partitions) > 1
    # The same from nothing, for whoever comes later.
    lake.metadata.replace_partitions(
        "thread_spans", stream_id, frozenset(each.partition_id for each in partitions), None
    )
    expected, anomalies = thread.expected(there)
    assert thread.in_sql(engine) == expected
    errors = column(ask(engine, "SELECT error FROM list_block_errors() WHERE view_set_name = 'thread_spans'"))
    told = sum(int(error.split(": ")[1].split(" ")[0]) for error in errors)
    assert told == anomalies


@pytest.mark.usefixtures("small_partitions")
def test_a_narrow_range_sees_the_whole_of_what_overlaps_it(lake: Lake, engine: QueryEngine) -> None:
    random = Random(7)
    thread = Thread(lake)
    blocks = random_thread_blocks(random, thread, 20)
    thread.stream.commit(*blocks)
    everything, _ = thread.expected(blocks)
    assert_ranges_are_whole(engine, thread, everything, random, count=4)


def assert_ranges_are_whole(
    engine: QueryEngine, thread: Thread, everything: Counter[tuple[Any, ...]], random: Random, count: int
) -> None:
    for _ in range(count):
        begin = random.randrange(950, 1600)
        end = begin + random.randrange(50)
        expected = Counter({row: found for row, found in everything.items() if row[3] <= end and row[4] >= begin})
        assert thread.in_sql(engine, begin=START_TIME + begin, end=START_TIME + end) == expected


def rows_made(lake: Lake, thread: Thread) -> list[bool]:
    """Per partition of the thread, whether it has rows."""
    partitions = lake.metadata.partitions("thread_spans", thread.stream.stream.stream_id)
    return [each.schema_hash == THREAD_SPANS.schema_hash for each in partitions]


HOUR = 3_600_000_000_000


def hours_of_work(thread: Thread, hours: int) -> list[Block]:
    """A block an hour, each with two spans of some minutes, in a span that began in the first and ends in the last."""
    blocks = []
    for hour in range(hours):
        now = hour * HOUR
        events = [(is_begin, scope, now + place * HOUR // 8) for place, (is_begin, scope) in enumerate(FRAME, start=1)]
        if not hour:
            events.insert(0, (True, 2, now))
        if hour == hours - 1:
            events.append((False, 2, now + HOUR - 1))
        blocks.append(thread.block(events, now, now + HOUR))
    return blocks


FRAME = [(True, 0), (True, 1), (False, 1), (False, 0)]


def test_a_look_at_an_hour_makes_no_other_rows_and_knows_what_is_around(
    lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CarriedLook, "small_objects", 0)
    monkeypatch.setattr(CarriedLook, "max_objects", 4)
    thread = Thread(lake)
    blocks = hours_of_work(thread, 24)
    thread.stream.commit(*blocks)
    everything, _ = thread.expected(blocks)
    begin, end = 12 * HOUR + 1, 13 * HOUR - 1
    expected = Counter({row: count for row, count in everything.items() if row[3] <= end and row[4] >= begin})
    assert {(row[0], row[5][0], row[3]) for row in expected} >= {(0, "wait", 0)}
    assert thread.in_sql(engine, begin=START_TIME + begin, end=START_TIME + end) == expected
    made = rows_made(lake, thread)
    # That hour, and where the long span ended.
    assert len(made) == 24
    assert (made[12], made[23]) == (True, True)
    assert sum(made) <= 4
    assert thread.in_sql(engine) == everything
    assert all(rows_made(lake, thread))


def test_a_look_lists_and_decodes_what_is_new(lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarriedLook, "small_objects", 0)
    thread = Thread(lake)
    blocks = hours_of_work(thread, 30)
    thread.stream.commit(*blocks[:10])
    thread.in_sql(engine)
    listed: list[int] = []
    blocks_of = lake.metadata.blocks

    def spied(**conditions: Any) -> list[BlockRow]:
        found = blocks_of(**conditions)
        listed.append(len(found))
        return found

    monkeypatch.setattr(lake.metadata, "blocks", spied)
    of_looks: list[int] = []
    for block in blocks[10:]:
        thread.stream.commit(block)
        listed.clear()
        thread.in_sql(engine, begin=START_TIME + block.begin_ticks)
        of_looks.append(sum(listed))
    # The new one, and those that become one partition with it, which double each time.
    assert statistics.median(of_looks) <= 4
    assert sum(of_looks) <= len(blocks) * math.log2(2 * len(blocks))
    monkeypatch.undo()
    everything, _ = thread.expected(blocks)
    assert thread.in_sql(engine) == everything


def test_what_retention_left_keeps_what_it_knows(
    lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks and partitions go from the front; rows that were never made are made of what is left."""
    monkeypatch.setattr(CarriedLook, "small_objects", 0)
    monkeypatch.setattr(CarriedLook, "max_objects", 8)
    thread = Thread(lake)
    blocks = hours_of_work(thread, 24)
    thread.stream.commit(*blocks)
    stream_id = thread.stream.stream.stream_id
    engine._just_in_time.advance(THREAD_SPANS, stream_id)
    partitions = lake.metadata.partitions("thread_spans", stream_id)
    states = [lake.metadata.carried_state(each.partition_id) for each in partitions]
    assert not any(rows_made(lake, thread))
    # The third partition loses the first of its blocks.
    third = partitions[2]
    horizon = lake.metadata.blocks(stream_id=stream_id, insert_begin=third.begin_insert_time)[1].insert_time
    lake.delete_blocks_of([stream_id], horizon)
    lake.metadata.retire_partitions_before(horizon, 100)
    everything, _ = thread.expected(blocks)
    left = lake.metadata.blocks(stream_id=stream_id)[0].begin_ticks
    expected = Counter({row: count for row, count in everything.items() if row[4] > left})
    found = thread.in_sql(engine)
    assert {row[0] for row in found} == {row[0] for row in expected}
    # The long span's begin is known to all that comes behind.
    assert all(row in found for row in expected if row[3] >= third.max_event_time - START_TIME)
    kept = lake.metadata.partitions("thread_spans", stream_id)
    assert [lake.metadata.carried_state(each.partition_id) for each in kept] == states[2:]
    assert thread.in_sql(engine) == found
    assert lake.metadata.partitions("thread_spans", stream_id) == kept


def test_a_late_block_does_not_hide_rows_that_outlive_their_blocks(
    lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CarriedLook, "small_objects", 0)
    monkeypatch.setattr(CarriedLook, "max_objects", 8)
    thread = Thread(lake)
    thread.stream.commit(*hours_of_work(thread, 24))
    before = thread.in_sql(engine)
    stream_id = thread.stream.stream.stream_id
    partitions = lake.metadata.partitions("thread_spans", stream_id)
    horizon = partitions[4].end_insert_time - 1
    lake.delete_blocks_of([stream_id], horizon)
    assert len(lake.metadata.blocks(stream_id=stream_id, insert_end=partitions[4].end_insert_time)) == 1
    late = thread.block([(True, 1, HOUR + 1), (False, 1, HOUR + 2)], HOUR, HOUR + 3)
    thread.stream.commit(late)
    found = thread.in_sql(engine)
    # It is told where what is known begins.
    assert [row[0] for row in found - before] == [late.object_offset]
    assert before - found == Counter()
    assert lake.metadata.partitions("thread_spans", stream_id)[:5] == partitions[:5]
    thread.stream.commit(thread.block([], 24 * HOUR, 25 * HOUR))
    assert found - thread.in_sql(engine) == Counter({row: 1 for row in found if row[0] == -1})


def test_a_partition_takes_no_more_spans_than_fit_in_memory(
    lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What senders say of how many events their blocks have bounds nothing."""
    thread = Thread(lake)
    blocks = hours_of_work(thread, 6)
    thread.stream.commit(*(replace(block, nb_objects=0) for block in blocks[:4]))
    monkeypatch.setattr(micromegas.views.thread_spans, "MAX_SPANS", 6)
    # The root, the span around all and two of the first block; two of the second.
    assert {row[0] for row in thread.in_sql(engine)} == {-1, 0, 1, 2, 5, 6}
    errors = column(ask(engine, "SELECT error FROM list_block_errors() WHERE view_set_name = 'thread_spans'"))
    stream_id = thread.stream.stream.stream_id
    assert sorted(errors) == sorted(
        f"block {block.block_id} of stream {stream_id}: its partition has 6 spans, and takes no more"
        for block in blocks[2:4]
    )


def test_an_open_span_ends_with_what_is_known_and_then_where_it_ended(lake: Lake, engine: QueryEngine) -> None:
    thread = Thread(lake)
    day = 86_400_000_000_000

    def draw() -> tuple[Any, ...]:
        (row,) = [row for row in thread.in_sql(engine) if row[5][0] == "draw"]
        return row[:5]

    thread.stream.commit(thread.block([(True, 0, 10), (True, 1, 20)], 0, day))
    assert draw() == (1, 0, 2, 20, day)
    thread.stream.commit(thread.block([], day, 2 * day))
    assert draw() == (1, 0, 2, 20, 2 * day)
    thread.stream.commit(thread.block([(False, 1, 3 * day - 5)], 2 * day, 3 * day))
    assert draw() == (1, 0, 2, 20, 3 * day - 5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("small_partitions")
def test_net_spans_of_blocks_in_any_order(lake: Lake, engine: QueryEngine, seed: int) -> None:
    random = Random(seed)
    stream = MadeStream(lake, "net", NET_EVENTS)
    made: list[tuple[Block, list[tuple[int, Any]]]] = []
    for number in range(16):
        events = [random_event(random, 1000 * number + place) for place in range(random.randrange(30))]
        numbered = [(stream.position + place, event) for place, event in enumerate(events)]
        made.append((block_of(stream, events, 1000 * number, 1000 * number + 999), numbered))
    if seed:
        random.shuffle(made)
    there: list[tuple[Block, list[tuple[int, Any]]]] = []
    while made:
        arrived = [made.pop(0) for _ in range(min(len(made), 3))]
        stream.commit(*(block for block, _ in arrived))
        there += arrived
        if random.random() < 0.5:
            engine._just_in_time.advance(NET_SPANS, stream.process_id)
        in_order = sorted(there, key=lambda each: each[0].begin_ticks)
        expected = net_spans(event for _, events in in_order for event in events)
        assert Counter(rows_in_sql(engine, stream.process_id)) == Counter(map(in_nanoseconds, expected))


def async_block(stream: MadeStream, events: Sequence[tuple[bool, int, int]], begin: int, end: int) -> Block:
    """Events are (is a begin, id, ticks); a span's parent is the id before its own, its depth the id modulo 7."""
    maker: BlockMaker = stream.maker()
    descriptions = [maker.span_description(*scope) for scope in SCOPES]
    for is_begin, span_id, ticks in events:
        name = "BeginAsyncSpanEvent" if is_begin else "EndAsyncSpanEvent"
        description = descriptions[span_id % len(SCOPES)]
        maker.event(name, struct.pack("<QqQQI", description, ticks, span_id, span_id - 1, span_id % 7))
    return stream.block(maker, len(events), begin, end)


ASYNC_COLUMNS = "stream_id, span_id, parent_span_id, depth, begin, end, duration, state, name, target, filename, line"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("small_partitions")
def test_async_spans_of_threads_in_any_order(lake: Lake, engine: QueryEngine, seed: int) -> None:
    random = Random(seed)
    streams = [MadeStream(lake, "cpu", ASYNC_EVENTS)]
    streams += [MadeStream(lake, "cpu", ASYNC_EVENTS, of=streams[0].process) for _ in range(2)]
    told: list[list[tuple[bool, int, int, int]]] = [[] for _ in range(12)]
    for span_id in range(1, 150):
        begin = random.randrange(12_000)
        end = begin + random.randrange(8_000)
        for is_begin, ticks in ((True, begin), (False, end)):
            if ticks < 12_000 and random.random() > 0.05:
                told[ticks // 1000].append((is_begin, span_id, ticks, random.randrange(3)))
    made: list[tuple[Block, int, list[tuple[bool, int, int]]]] = []
    for number, events in enumerate(told):
        for thread, stream in enumerate(streams):
            mine = sorted((each[:3] for each in events if each[3] == thread), key=lambda each: each[2])
            made.append((async_block(stream, mine, 1000 * number, 1000 * number + 999), thread, mine))
    if seed:
        random.shuffle(made)
    view = f"view_instance('async_spans', '{streams[0].process_id}')"
    there: list[tuple[Block, int, list[tuple[bool, int, int]]]] = []
    while made:
        arrived = [made.pop(0) for _ in range(min(len(made), 5))]
        streams[0].commit(*(block for block, _, _ in arrived))
        there += arrived
        if random.random() < 0.5:
            engine._just_in_time.advance(ASYNC_SPANS, streams[0].process_id)
        known_until = max(block.end_ticks for block, _, _ in there)
        begins = {each[1]: (each[2], thread) for _, thread, events in there for each in events if each[0]}
        ends = {each[1]: (each[2], thread) for _, thread, events in there for each in events if not each[0]}
        expected: Counter[tuple[Any, ...]] = Counter()
        for span_id in begins.keys() | ends.keys():
            begin, thread = begins.get(span_id) or ends[span_id]
            end = ends[span_id][0] if span_id in ends else known_until
            state = "begin_lost" if span_id not in begins else "closed" if span_id in ends else "open"
            name, target, line = SCOPES[span_id % len(SCOPES)]
            times = (begin + START_TIME, end + START_TIME, end - begin)
            stream_id = streams[thread].stream.stream_id
            row = (stream_id, span_id, span_id - 1, span_id % 7, *times, state, name, target, "file.py", line)
            expected[row] += 1
        table = ask(engine, f"SELECT {ASYNC_COLUMNS} FROM {view}")
        assert Counter(zip(*(column(table, place) for place in range(12)), strict=True)) == expected
    assert len(lake.metadata.partitions("async_spans", streams[0].process_id)) > 1


def test_an_async_span_that_begins_twice(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "cpu", ASYNC_EVENTS)
    stream.commit(async_block(stream, [(True, 5, 10), (True, 5, 20), (False, 5, 30)], 0, 40))
    table = ask(engine, f"SELECT begin, end FROM view_instance('async_spans', '{stream.process_id}')")
    assert (column(table, 0), column(table, 1)) == ([START_TIME + 10], [START_TIME + 30])
    (error,) = column(ask(engine, "SELECT error FROM list_block_errors()"))
    assert "1 async spans began or ended twice" in error
