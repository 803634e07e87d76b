"""Blocks that came before anything told the frequency of their process: their rows are had as soon as it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from daemon.telemetry import HandClock, always, global_partitions
from e2e.made_traffic import FREQUENCY, MadeProcess, block_request
from query.asking import ask, one

from micromegas.config import QuerySettings
from micromegas.daemon.clockless_blocks import ClocklessBlocks
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import DAY, MINUTE
from micromegas.daemon.reduced_partitions import ReducedPartitions
from micromegas.lake import CLOCK_UNKNOWN, Lake
from micromegas.query import QueryEngine
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.wire import Batch, Block, Process, Stream

TEXTS = "SELECT msg FROM {} ORDER BY msg"


class Clockless:
    """A process that doesn't tell its frequency, nor do its first blocks."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        made = MadeProcess(Random(7))
        self.process_id = made.process_id
        self._log = made.stream("log")
        self._thread = made.stream("cpu")
        self.thread_id = self._thread.stream_id
        self._start = Process.decode(made.request().body)
        streams = [Stream.decode(each.request().body) for each in (self._log, self._thread)]
        lake.commit(Batch([replace(self._start, tsc_frequency=0)], streams))

    def send(self, text: str, seconds: int, *, known: bool = False, broken: bool = False) -> None:
        """A block of a log that ends so many seconds after the start, and says so if its clock is to be `known`."""
        fields = self._log.logs([text])
        if broken:
            fields["payload"]["objects"] = b"no lz4 frame"
        self._send(fields, seconds, known=known)

    def send_spans(self, steps: str, seconds: int, *, known: bool = False) -> None:
        """A block of a thread: `(` and `)` for begins and ends."""
        self._send(self._thread.spans(steps), seconds, known=known)

    def _send(self, fields: dict[str, Any], seconds: int, *, known: bool) -> None:
        ticks = seconds * FREQUENCY + 10_000_000_000
        time = self._start.start_time + known * (ticks * 1_000_000_000 // FREQUENCY)
        block = Block.decode(block_request(fields).body)
        block = replace(block, begin_ticks=ticks - 1, end_ticks=ticks, begin_time=time, end_time=time)
        self._lake.commit(Batch(blocks=[block]))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    engine = QueryEngine(lake, QuerySettings())
    yield engine
    engine.close()


def texts(engine: QueryEngine, table: str = "log_entries") -> list[str]:
    return ask(engine, TEXTS.format(table)).column("msg").to_pylist()


def test_rows_come_with_the_clock(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = Clockless(lake)
    of_process = f"view_instance('log_entries', '{process.process_id}')"
    process.send("first", 1)
    process.send("broken", 2, broken=True)
    clock.now += 2 * MINUTE
    fresh = FreshPartitions(lake, LOG_ENTRIES, clock)
    retries = ClocklessBlocks(lake, VIEW_SETS, clock)
    assert fresh.cover(0, always) == 0
    assert texts(engine) == texts(engine, of_process) == []
    assert {each.decoder_version for each in lake.metadata.block_errors()} == {CLOCK_UNKNOWN}
    clock.now += 2 * MINUTE
    before = global_partitions(lake, LOG_ENTRIES)
    assert retries.retry(always) == 0
    assert global_partitions(lake, LOG_ENTRIES) == before
    process.send("second", 3, known=True)
    assert texts(engine) == ["second"]
    for _ in range(2):
        clock.now += 2 * MINUTE
        assert retries.retry(always) == 0
        assert texts(engine) == texts(engine, of_process) == ["first", "second"]
    remade = global_partitions(lake, LOG_ENTRIES)
    assert [each.failed_blocks for each in remade] == [1]
    # What a decoder failed at is nothing to try again.
    (error,) = lake.metadata.block_errors()
    assert error.decoder_version != CLOCK_UNKNOWN
    assert retries.retry(always) == 0
    assert global_partitions(lake, LOG_ENTRIES) == remade


def test_views_of_the_rows_count_them_too(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = Clockless(lake)
    process.send("first", 1)
    clock.now += 2 * MINUTE
    fresh = FreshPartitions(lake, LOG_ENTRIES, clock)
    retries = ClocklessBlocks(lake, VIEW_SETS, clock)
    stats = ReducedPartitions(lake, LOG_STATS, engine.reductions, clock)
    assert fresh.cover(0, always) == stats.cover(0, always) == 0
    assert [each.failed_blocks for each in global_partitions(lake, LOG_STATS)] == [1]
    process.send("second", 3, known=True)
    clock.now += 2 * MINUTE
    assert fresh.cover(0, always) == retries.retry(always) == stats.mend(always) == 0
    assert one(ask(engine, "SELECT sum(count) FROM log_stats")) == len(texts(engine)) == 2
    assert {each.failed_blocks for each in global_partitions(lake, LOG_STATS)} == {0}


def test_rows_that_outlive_their_blocks_are_left_alone(lake: Lake, clock: HandClock) -> None:
    process = Clockless(lake)
    process.send("first", 1)
    process.send("second", 2)
    clock.now += MINUTE
    assert FreshPartitions(lake, LOG_ENTRIES, clock).cover(0, always) == 0
    first, _second = lake.metadata.blocks()
    while lake.delete_blocks_before(first.insert_time + 1, 100):
        pass
    process.send("third", 3, known=True)
    before = global_partitions(lake, LOG_ENTRIES)
    clock.now += DAY
    retries = ClocklessBlocks(lake, VIEW_SETS, clock)
    assert retries.retry(always) == 0
    assert global_partitions(lake, LOG_ENTRIES) == before != []


def test_spans_come_with_the_clock(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = Clockless(lake)
    spans = (
        f"SELECT count(*) AS n FROM view_instance('thread_spans', '{process.thread_id}') "
        "WHERE \"end\" >= TIMESTAMP '2000-01-01'"
    )
    process.send_spans("()", 1)
    assert one(ask(engine, spans)) == 0
    # A day of its own, so that what is new does not take in what was.
    clock.now += DAY
    process.send_spans("()()", 100, known=True)
    assert one(ask(engine, spans)) == 3
    assert ClocklessBlocks(lake, VIEW_SETS, clock).retry(always) == 0
    assert one(ask(engine, spans)) == 5
