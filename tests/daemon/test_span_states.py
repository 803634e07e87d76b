"""The daemon follows long threads and processes without making rows, and a look at one begins where it left off."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from daemon.telemetry import always
from query.asking import ask, one
from senders import START_TIME
from views.test_net_spans import NET_EVENTS, block_of, random_event
from views.test_spans_over_partitions import ASYNC_EVENTS, HOUR, Thread, async_block, hours_of_work, rows_made
from views.traffic import MadeStream

from micromegas.config import DaemonSettings, QuerySettings
from micromegas.daemon import Daemon, span_states
from micromegas.daemon.span_states import SpanStates
from micromegas.lake import Lake, Partition
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.blocks import long_streams
from micromegas.query import QueryEngine
from micromegas.query.carried_partitions import CarriedLook
from micromegas.query.just_in_time import JustInTime
from micromegas.views.async_spans import ASYNC_SPANS
from micromegas.views.net_spans import NET_SPANS


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_states, "MIN_OBJECTS", 20)
    monkeypatch.setattr(CarriedLook, "max_objects", 8)
    monkeypatch.setattr(CarriedLook, "small_objects", 0)


def advance(lake: Lake, lately_s: float = 3600.0) -> None:
    just_in_time = JustInTime(lake, 60.0)
    try:
        assert SpanStates(lake, just_in_time, lake.clock, lately_s).advance(always) == 0
    finally:
        just_in_time.close()


def partition_ids(lake: Lake, thread: Thread) -> list[str]:
    return [each.partition_id for each in lake.metadata.partitions("thread_spans", thread.stream.stream.stream_id)]


def test_long_threads_are_followed_and_their_rows_made_where_somebody_looks(lake: Lake) -> None:
    long, short, silent = Thread(lake), Thread(lake), Thread(lake)
    blocks = hours_of_work(long, 24)
    short.stream.commit(*hours_of_work(short, 4))
    long.stream.commit(*blocks[:10])
    advance(lake)
    assert rows_made(lake, long) == [False] * len(partition_ids(lake, long)) != []
    assert rows_made(lake, short) == rows_made(lake, silent) == []
    followed = partition_ids(lake, long)
    # Too little came since for another step.
    long.stream.commit(*blocks[10:14])
    advance(lake)
    assert partition_ids(lake, long) == followed
    long.stream.commit(*blocks[14:])
    advance(lake)
    assert partition_ids(lake, long)[: len(followed)] == followed
    states = rows_made(lake, long)
    assert sum(states) == 0
    engine = QueryEngine(lake, QuerySettings())
    try:
        begin, end = 3 * HOUR + 1, 4 * HOUR - 1
        everything, _ = long.expected(blocks)
        expected: Counter[tuple[Any, ...]] = Counter(
            {row: count for row, count in everything.items() if row[3] <= end and row[4] >= begin}
        )
        assert long.in_sql(engine, begin=START_TIME + begin, end=START_TIME + end) == expected
        # The hour itself (and what touches it), and where the span around it all ended.
        assert 2 <= sum(rows_made(lake, long)) <= 4
        assert len(rows_made(lake, long)) == len(states)
        assert long.in_sql(engine) == everything
    finally:
        engine.close()


def test_what_long_processes_replicate_is_followed(lake: Lake) -> None:
    random = Random(1)
    stream = MadeStream(lake, "net", NET_EVENTS)
    for number in range(8):
        events = [random_event(random, 1000 * number + place) for place in range(5)]
        stream.commit(block_of(stream, events, 1000 * number, 1000 * number + 999))
    advance(lake)
    partitions = lake.metadata.partitions("net_spans", stream.process_id)
    assert len(partitions) > 1
    assert {each.schema_hash for each in partitions} == {NET_SPANS.state_hash}
    assert lake.metadata.partitions("async_spans", stream.process_id) == []


def test_asynchronous_spans_are_followed_once_somebody_looked_at_them(lake: Lake) -> None:
    stream = MadeStream(lake, "cpu", ASYNC_EVENTS)

    def send(numbers: range) -> None:
        for number in numbers:
            ids = (2 * number, 2 * number + 1)
            events = [(is_begin, span_id, 10 * number) for span_id in ids for is_begin in (True, False)]
            stream.commit(async_block(stream, events, 10 * number, 10 * number + 9))

    def partitions() -> list[Partition]:
        return lake.metadata.partitions("async_spans", stream.process_id)

    send(range(1, 10))
    advance(lake)
    assert partitions() == []
    engine = QueryEngine(lake, QuerySettings())
    try:
        question = f"SELECT count(*) FROM view_instance('async_spans', '{stream.process_id}')"
        assert one(ask(engine, question)) == 18
        looked_at = partitions()
        send(range(10, 20))
        advance(lake)
        followed = partitions()
        assert followed[: len(looked_at)] == looked_at
        assert {each.schema_hash for each in followed[len(looked_at) :]} == {ASYNC_SPANS.state_hash}
        assert one(ask(engine, question)) == 38
    finally:
        engine.close()


def test_a_thread_that_lies_about_its_place_stops_nobody(lake: Lake) -> None:
    """The events before a block may be as many as the column takes."""
    honest, liar = Thread(lake), Thread(lake)
    blocks = hours_of_work(liar, 10)
    liar.stream.commit(*blocks[:9], replace(blocks[9], object_offset=2**63 - 1))
    honest.stream.commit(*hours_of_work(honest, 10))
    advance(lake)
    assert partition_ids(lake, honest)
    assert partition_ids(lake, liar)


def test_finding_long_threads_costs_what_came_lately() -> None:
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        statement = long_streams("cpu", 1, 1).compile(engine, compile_kwargs={"literal_binds": True})
        steps = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    assert any(step.startswith("SEARCH blocks USING INDEX ix_blocks_insert_time") for step in steps), steps
    assert not any(step.startswith("SCAN blocks") for step in steps), steps


def test_a_thread_that_sent_long_ago_is_left_alone(lake: Lake) -> None:
    thread = Thread(lake)
    thread.stream.commit(*hours_of_work(thread, 10))
    advance(lake, lately_s=-3600.0)
    assert partition_ids(lake, thread) == []


def test_the_daemon_does_it(lake: Lake) -> None:
    thread = Thread(lake)
    thread.stream.commit(*hours_of_work(thread, 10))

    async def scenario() -> None:
        daemon = Daemon(lake, DaemonSettings(tick_s=0.02))
        work = asyncio.create_task(daemon.run())
        while not partition_ids(lake, thread):
            await asyncio.sleep(0.01)
        await daemon.stop()
        await work

    asyncio.run(asyncio.wait_for(scenario(), 60.0))
    assert rows_made(lake, thread)[0] is False
