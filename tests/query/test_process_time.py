"""Events are found by their own time, which is that of the counter of their process, whatever its wall clock does."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from e2e.made_traffic import START_TIME, MadeProcess, MadeStream, block_request
from query.asking import ask, column
from query.traffic import materialize

from micromegas.lake import STAMP_MARGIN, Lake
from micromegas.query import QueryEngine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.wire import Batch, Block, Process, Stream

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE


class Sender:
    """A process whose wall clock is `set_by` ns off since it was set."""

    def __init__(self, lake: Lake, **changes: int) -> None:
        self._lake = lake
        self.set_by = 0
        made = MadeProcess(Random(5), **changes)
        self.process_id = made.process_id
        self.log = made.stream("log")
        self.thread = made.stream("cpu")
        announced = [Stream.decode(each.request().body) for each in (self.log, self.thread)]
        lake.commit(Batch([Process.decode(made.request().body)], announced, []))

    def send(self, now: int) -> None:
        """A message and a span of this moment (ns since the start)."""
        self.log.now = self.thread.now = now
        for stream, fields in (
            (self.log, self.log.logs([f"at {now // MINUTE}"])),
            (self.thread, self.thread.spans("()")),
        ):
            self._commit(stream, Block.decode(block_request(fields).body))

    def _commit(self, stream: MadeStream, block: Block) -> None:
        begin, end = block.begin_time + self.set_by, block.end_time + self.set_by
        self._lake.commit(Batch(blocks=[replace(block, begin_time=begin, end_time=end)]))


@pytest.mark.parametrize(("frequency", "set_by"), [(1_000_000_000, -7 * HOUR), (0, 5 * HOUR)])
def test_a_wall_clock_that_is_set_hides_no_event(lake: Lake, engine: QueryEngine, frequency: int, set_by: int) -> None:
    sender = Sender(lake, tsc_frequency=frequency)
    minutes = [0, 20, 50, 60, 70, 200, 700, 1400]
    for minute in minutes:
        if minute >= 60:
            sender.set_by = set_by
        sender.send(minute * MINUTE + 1000)
    threads = f"view_instance('thread_spans', '{sender.thread.stream_id}')"
    sources = {
        "log_entries": "time",
        f"view_instance('log_entries', '{sender.process_id}')": "time",
        f"(SELECT * FROM {threads} WHERE depth > 0)": '"begin"',
        f"process_spans('{sender.process_id}', 'thread')": '"begin"',
    }
    for is_materialized in (False, True):
        if is_materialized:
            materialize(lake, LOG_ENTRIES, pieces=3)
        for source, time in sources.items():
            expected = [START_TIME + minute * MINUTE + 1000 for minute in minutes]
            where = "WHERE depth > 0" if source.startswith("process_spans") else ""
            for minute, at in zip(minutes, expected, strict=True):
                sql = f"SELECT {time} FROM {source} {where}"
                found = column(ask(engine, sql, begin=at - MINUTE, end=at + MINUTE))
                assert len(found) == 1, (source, minute, is_materialized)
                assert abs(found[0] - at) <= 1000 * (minute + 1) * (frequency == 0), (source, minute)


def test_every_view_says_the_same_time_at_any_moment(lake: Lake, engine: QueryEngine) -> None:
    """Of a process that does not tell its frequency, whose clock gets better while partitions are made."""
    sender = Sender(lake, tsc_frequency=0)
    said: dict[tuple[str | int, str], int] = {}
    spans = f"SELECT id, \"begin\" FROM view_instance('thread_spans', '{sender.thread.stream_id}') WHERE depth > 0"
    sources = ["log_entries", f"view_instance('log_entries', '{sender.process_id}')"]
    moment = 1_000_000
    for step in range(14):
        # Read late, by ever so much.
        sender.set_by = step * 7919 % 400_000
        sender.send(moment)
        for source in sources:
            found = ask(engine, f"SELECT msg, time FROM {source}")
            for message, time in zip(column(found, 0), column(found, 1), strict=True):
                assert said.setdefault((message, "log"), time) == time
        found = ask(engine, spans, begin=START_TIME)
        for number, begin in zip(column(found, 0), column(found, 1), strict=True):
            assert said.setdefault((number, "span"), begin) == begin
        if step % 4 == 3:
            materialize(lake, LOG_ENTRIES)
        moment = moment * 3 + MINUTE
    logs, spans = ([time for (_, kind), time in said.items() if kind == wanted] for wanted in ("log", "span"))
    assert sorted(logs) == sorted(spans)
    assert len(logs) == 14
    row = lake.metadata.processes([sender.process_id])[sender.process_id]
    assert row.clock is not None
    assert len(row.clock["later_rates"]) > 5


def test_an_event_that_waited_for_its_stream_is_found(local_lake: Lake, local_engine: QueryEngine) -> None:
    """Its thread had read the clock, but got at the stream only when a new block had begun."""
    sender = Sender(local_lake)
    late = STAMP_MARGIN - 1000
    sender.log.now = 2 * MINUTE
    block = Block.decode(block_request(sender.log.logs(["late"])).body)
    waited = replace(block, begin_ticks=block.begin_ticks + late, end_ticks=block.end_ticks + late)
    local_lake.commit(Batch(blocks=[waited]))
    at = START_TIME + 2 * MINUTE
    for source in ("log_entries", f"view_instance('log_entries', '{sender.process_id}')"):
        assert column(ask(local_engine, f"SELECT msg FROM {source}", begin=at, end=at)) == ["late"]
