"""Clocks that are measured: one time for one tick, near the truth, and not led astray by a wall clock that is set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from senders import block, process, stream

from micromegas import _engine
from micromegas.lake import Lake, ProcessClock, ProcessRow, clock_of
from micromegas.lake.process_clock import MAX_RATES, MeasuredClock
from micromegas.wire import Batch, Block, Process, Stream

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
START = 1_750_000_000 * SECOND
FREQUENCY = 2_999_999_873


@dataclass(frozen=True, slots=True)
class Times:
    """What of a block tells the time."""

    begin_ticks: int
    end_ticks: int
    begin_time: int
    end_time: int


def ticks_of(elapsed: int) -> int:
    return elapsed * FREQUENCY // SECOND


def told(begin: int, end: int, *, set_by: int = 0, error: int = 0) -> Times:
    """A block between two true times since the start (ns), of which the sender's wall clock is off at the end."""
    return Times(ticks_of(begin), ticks_of(end), START + begin, START + end + set_by + error)


def row(clock: MeasuredClock) -> ProcessRow:
    stored = json.loads(json.dumps(clock.as_json()))
    return ProcessRow("", "", "", "", "", "", "", 0, START, 0, 0, None, {}, 0, None, None, stored)


def lived(blocks: list[Times]) -> list[MeasuredClock]:
    """The clock after each of the blocks, committed one by one."""
    clocks: list[MeasuredClock] = []
    visible = None
    for each in blocks:
        before = clocks[-1] if clocks else None
        if before is None or visible is None:
            clock = MeasuredClock.first(START, [each])
            assert clock is not None
        else:
            clock = before.measured([each], visible)
        assert clock_of(row(clock)) == clock.clock
        clocks.append(clock)
        visible = each.end_ticks if visible is None else max(visible, each.end_ticks)
    return clocks


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-1_000_000, 1_000_000)), min_size=2, max_size=60))
@settings(deadline=None)
def test_what_was_visible_keeps_its_times(steps: list[tuple[int, int]]) -> None:
    """Whatever comes later; the ends of all blocks together grow, as a counter does, and are near the wall clock."""
    now, blocks = 0, []
    for doubling, error in steps:
        before, now = now, now + 1_000_000 * doubling
        blocks.append(told(before, now, error=error))
    clocks = lived(blocks)
    final = clocks[-1].clock
    for position, clock in enumerate(clocks):
        for seen in blocks[: position + 1]:
            assert clock.clock.event_times(seen) == final.event_times(seen)
    ends = [0, *(each.end_ticks for each in blocks)]
    times = [final.time(ticks) for ticks in sorted({*ends, *(end + 1 for end in ends), *(end - 1 for end in ends)})]
    assert times == sorted(times)


def test_weeks_are_told_to_the_millisecond() -> None:
    """However short the first block was: extrapolating its frequency would be off by hours."""
    moments = [0, 20_000, SECOND, *(5 * SECOND * step for step in range(1, 400))]
    moments += [HOUR * hour for hour in range(1, 24 * 28)]
    # As a clock that is read to the microsecond, and late by up to 0.1 ms.
    blocks = [told(begin, end, error=(end * 7919) % 100_000 // 1000 * 1000) for begin, end in pairwise(moments)]
    clocks = lived(blocks)
    final = clocks[-1].clock
    for each in blocks[1:]:
        assert abs(final.time(each.end_ticks) - each.end_time) < 1_000_000
    assert len(final.later_rates) < 30


@pytest.mark.parametrize("jump", [-5 * HOUR, 2 * HOUR, 90 * SECOND])
@pytest.mark.parametrize("at", [70, 200, 3000])
def test_a_clock_that_is_set_is_not_followed(jump: int, at: int) -> None:
    seconds = range(0, 10_000, 5)
    blocks = [
        told(second * SECOND, (second + 5) * SECOND, set_by=jump if second >= at else 0, error=second % 7 * 1000)
        for second in seconds
    ]
    final = lived(blocks)[-1].clock
    for second, each in zip(seconds, blocks, strict=True):
        assert abs(final.time(each.end_ticks) - START - (second + 5) * SECOND) < SECOND // 100
    assert final.later_rates
    frequencies = [final.frequency, *(rate[2] for rate in final.later_rates)]
    assert all(abs(frequency - FREQUENCY) < FREQUENCY // 1000 for frequency in frequencies)


def test_a_frequency_that_was_wrong_from_the_start_is_found_out() -> None:
    """The clock was set within the first block, and all later ones tell another frequency."""
    blocks = [told(0, 5 * SECOND, set_by=HOUR)]
    blocks += [told(second * SECOND, (second + 5) * SECOND, set_by=HOUR) for second in range(5, 200, 5)]
    clocks = lived(blocks)
    assert abs(clocks[0].clock.frequency - FREQUENCY) > FREQUENCY // 2
    assert abs(clocks[-1].clock.later_rates[-1][2] - FREQUENCY) < 10


def test_headers_that_lie_do_not_make_a_clock_grow() -> None:
    """Every other look tells a rate that is believed, and a bit off; those between are not believed."""
    clock = MeasuredClock.first(START, [Times(0, 1, START, START + 1)])
    assert clock is not None
    seen: list[tuple[Times, tuple[int, int]]] = []
    visible = 1
    for step in range(3000):
        ticks = clock.next_look
        passed = ticks - clock.reference[0]
        known = clock.clock.later_rates[-1][2] if clock.clock.later_rates else clock.clock.frequency
        lie = clock.reference[1] + passed * SECOND // known + SECOND // 200
        told = Times(ticks - 1, ticks, START, lie if step % 2 else lie + HOUR)
        before, clock = clock, clock.measured([told], visible)
        if clock.reference != before.reference:
            assert clock.next_look - ticks >= min(known, 10 * SECOND)
        visible = ticks
        seen.append((told, clock.clock.event_times(told)))
    assert len(clock.clock.later_rates) == MAX_RATES
    assert all(clock.clock.event_times(each) == times for each, times in seen)


@pytest.mark.parametrize(
    ("first", "frequency"),
    [
        (Times(-1000, 0, START - 1000, START), SECOND),
        (Times(-40_000, -30_000, START, START), SECOND),
        (Times(0, 3000, START - HOUR, START - HOUR + 1000), 3 * SECOND),
        (Times(0, 2**62, START, START), None),
        (Times(2**62, -(2**62), START, START + 1), None),
    ],
)
def test_first_blocks_that_tell_little(first: Times, frequency: int | None) -> None:
    clock = MeasuredClock.first(START, [first])
    assert (None if clock is None else clock.clock.frequency) == frequency
    if clock is not None:
        later = clock.measured([told(0, 5 * SECOND)], max(first.end_ticks, 0))
        error = abs(later.clock.time(ticks_of(4 * SECOND)) - START - 4 * SECOND)
        assert error < SECOND // 100 or first.end_time < START


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([1, 1000, SECOND, FREQUENCY, 4_000_000_000, 4_000_000_001, 2**63 - 1]),
    st.lists(
        st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62), st.integers(1, 2**63 - 1)), max_size=4
    ),
)
@settings(deadline=None)
def test_times_are_exact(ticks: int, start_time: int, frequency: int, rates: list[tuple[int, int, int]]) -> None:
    rates.sort()
    clock = ProcessClock(start_time, frequency, tuple(rates))
    origin, time, rate = max(
        (each for each in rates if each[0] <= ticks), key=lambda each: each[0], default=(0, start_time, frequency)
    )
    if [each[0] for each in rates].count(origin) < 2:
        exact = Fraction((ticks - origin) * SECOND, rate)
        assert abs(clock.time(ticks) - max(-(2**63), min(2**63 - 1, time + exact))) <= Fraction(1, 2)
    if not rates:
        assert clock.time(ticks) == _engine.ticks_to_time(ticks, start_time, 0, frequency)


def measured(lake: Lake, owner: Process) -> ProcessClock | None:
    return clock_of(lake.metadata.processes([owner.process_id])[owner.process_id])


def test_blocks_have_the_times_of_their_clock(lake: Lake) -> None:
    """Announced or measured, in whatever order announcements come; what was noted stays."""
    known = process(tsc_frequency=1000, start_time=START)
    unknown = process(tsc_frequency=0, start_time=START)
    owners = [known, unknown]
    streams = [stream(owner.process_id, tags=["log"]) for owner in owners]
    otlp = stream(known.process_id, tags=["trace"], format="otlp/v1/traces")
    odd = stream(known.process_id, tags=["log"], format="of somebody else")

    def made(of: Stream, second: int) -> Block:
        ticks = (second - 1) * 1000, second * 1000
        if of is otlp:
            ticks = START + ticks[0], START + ticks[1]
        return block(
            of,
            begin_ticks=ticks[0],
            end_ticks=ticks[1],
            begin_time=START + (second - 1) * SECOND,
            end_time=START + second * SECOND + second % 3,
        )

    # Pending, then visible with the announcement of the process, of the stream, and at once.
    pending = [made(each, 1) for each in (*streams, otlp, odd)]
    lake.commit(Batch(blocks=pending))
    lake.commit(Batch(streams=[*streams, otlp, odd]))
    assert lake.metadata.blocks() == []
    lake.commit(Batch(processes=owners, blocks=[made(each, 2) for each in (*streams, otlp, odd)]))
    noted: dict[str, tuple[int | None, int | None]] = {}
    for second in range(3, 40):
        lake.commit(Batch(blocks=[made(each, second) for each in (*streams, otlp, odd)]))
        for each in lake.metadata.blocks():
            times = each.min_event_time, each.max_event_time
            assert noted.setdefault(each.block_id, times) == times
    clocks = {owner.process_id: measured(lake, owner) for owner in owners}
    assert clocks[known.process_id] == ProcessClock(START, 1000)
    for each in lake.metadata.blocks():
        clock = clocks[each.process_id]
        assert clock is not None
        if each.stream_id == otlp.stream_id:
            assert noted[each.block_id] == (each.begin_ticks, each.end_ticks)
        elif each.stream_id == odd.stream_id:
            assert noted[each.block_id] == (None, None)
        else:
            assert noted[each.block_id] == clock.event_times(each)
            assert abs(clock.time(each.end_ticks) - each.end_time) <= 4
    in_range = lake.metadata.blocks(stream_id=streams[0].stream_id, event_begin=START + 20 * SECOND)
    # One second each, and ten more for threads that had to wait.
    assert len(in_range) == 39 - 10 + 1
    assert len(lake.metadata.blocks(stream_id=odd.stream_id, event_begin=START + 10**6 * SECOND)) == 39
    assert lake.metadata.blocks(stream_id=otlp.stream_id, event_begin=START + 10**6 * SECOND) == []


def test_commits_of_several_servers_measure_one_clock(lake: Lake) -> None:
    """A block that comes late changes nothing, nor does one that comes twice."""
    owner = process(tsc_frequency=0, start_time=START)
    log = stream(owner.process_id)
    blocks = [
        block(
            log,
            begin_ticks=step * 1000,
            end_ticks=(step + 1) * 1000,
            begin_time=START + step * SECOND,
            end_time=START + (step + 1) * SECOND,
        )
        for step in range(64)
    ]
    lake.commit(Batch([owner], [log], [blocks[3]]))
    for each in (blocks[40], blocks[2], blocks[40], blocks[3], *blocks):
        before = measured(lake, owner)
        lake.commit(Batch(blocks=[each]))
        if each is not blocks[40] and each.end_ticks < blocks[40].end_ticks:
            assert measured(lake, owner) == before
    assert measured(lake, owner) == ProcessClock(START, 1000)
