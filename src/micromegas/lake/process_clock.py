"""The clock of a process: which time a count of its counter is, the same for every view, server and rebuild.

It must never change the time of an event in a block that was visible: rows made of it are in partitions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from micromegas.lake.rows import ProcessRow

SECOND = 1_000_000_000
_LARGEST = 2**63 - 1

# How far the wall clock that a frequency is measured with may be off: reading it takes time, and it is set right by
# small steps and by up to 500 ppm. What deviates more is a clock that was set, or a machine that was suspended.
_WALL_ERROR = SECOND // 100
_WALL_SLEW = 2000

# A program that lives for years, or whose clock is set each week, has some dozens. Only what lies has more.
MAX_RATES = 64
# No counter is faster, in ticks per second.
_FASTEST = 10 * SECOND

Rate = tuple[int, int, int]
"""From `ticks` (since the start of the process) on, which are `time` (ns since the epoch), the counter counts
`frequency` ticks per second."""


class TimedBlock(Protocol):
    """What of a block tells about the clock of its process; as in `Block`."""

    @property
    def begin_ticks(self) -> int: ...
    @property
    def end_ticks(self) -> int: ...
    @property
    def begin_time(self) -> int: ...
    @property
    def end_time(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ProcessClock:
    """Ticks since the start of the process (ns since the epoch) as times, with `frequency` ticks per second until the
    first of the `later_rates`, each of which holds up to the next. Continuous and never decreasing."""

    start_time: int
    frequency: int
    later_rates: tuple[Rate, ...] = ()

    def time(self, ticks: int) -> int:
        """ns since the epoch, to the nearest (halves away from the rate's origin), within the range of int64."""
        place = bisect_right(self.later_rates, ticks, key=lambda rate: rate[0])
        origin, time, frequency = self.later_rates[place - 1] if place else (0, self.start_time, self.frequency)
        elapsed = _rounded_quotient((ticks - origin) * SECOND, frequency)
        return max(-_LARGEST - 1, min(_LARGEST, time + elapsed))

    def of_block(self, block: TimedBlock) -> ProcessClock:
        """The clock that a block is read with, whatever was measured since the block came."""
        rates = self.later_rates
        return replace(self, later_rates=rates[: bisect_right(rates, block.end_ticks - 1, key=lambda rate: rate[0])])

    def event_times(self, block: TimedBlock) -> tuple[int, int]:
        """The times (ns) between which the block says that its events are."""
        clock = self.of_block(block)
        begin, end = clock.time(block.begin_ticks), clock.time(block.end_ticks)
        return min(begin, end), max(begin, end)


@dataclass(frozen=True, slots=True)
class MeasuredClock:
    """The clock of a process that did not tell its frequency.

    The frequency is measured over ever longer times: when twice as many ticks as last time have passed since the
    `reference` (ticks, ns), at `next_look`. What is measured then holds behind the blocks that are visible by then.
    At `MAX_RATES` that ends, and the last rate goes on.
    """

    clock: ProcessClock
    reference: tuple[int, int]
    measured_over: int
    """Ticks."""

    next_look: int
    doubt: int | None = None
    """A frequency that was measured and not believed; the next of its kind is."""

    @staticmethod
    def first(start_time: int, blocks: Sequence[TimedBlock]) -> MeasuredClock | None:
        """What the first blocks tell; None when it is nothing."""
        newest = max(blocks, key=_end)
        widest = max(blocks, key=lambda block: block.end_ticks - block.begin_ticks)
        # The first block of a process may end before the process has looked at its clock, and the clock may be set.
        for reference, (ticks, time) in (
            ((0, start_time), _end(newest)),
            ((widest.begin_ticks, widest.begin_time), _end(widest)),
        ):
            passed = ticks - reference[0]
            if frequency := _frequency(passed, time - reference[1]):
                return MeasuredClock(ProcessClock(start_time, frequency), reference, passed, ticks + passed)
        if all(abs(ticks) <= SECOND for block in blocks for ticks in (block.begin_ticks, block.end_ticks)):
            # So near to the start of the process any frequency that a counter may have does.
            return MeasuredClock(ProcessClock(start_time, SECOND), (0, start_time), 0, max(newest.end_ticks, 0) + 1)
        return None

    def measured(self, blocks: Sequence[TimedBlock], visible_ticks: int) -> MeasuredClock:
        """The clock with what these blocks tell. No visible block ends behind `visible_ticks`."""
        ticks, time = _end(max(blocks, key=_end))
        if ticks < self.next_look or len(self.clock.later_rates) >= MAX_RATES:
            return self
        passed, elapsed = ticks - self.reference[0], time - self.reference[1]
        frequency = _frequency(passed, elapsed)
        known = self.clock.later_rates[-1][2] if self.clock.later_rates else self.clock.frequency
        believed = self._agree(known, passed, elapsed) or (
            self.doubt is not None and self._agree(self.doubt, passed, elapsed)
        )
        if not frequency or not believed:
            # The clock was set, and its time is no measure up to here. Or it had been set before, and `known` is wrong.
            # Less than a second tells nothing of such a clock.
            return replace(
                self,
                reference=(ticks, time),
                next_look=ticks + max(self.measured_over, min(known, _FASTEST)),
                doubt=frequency or self.doubt,
            )
        clock = self.clock
        if frequency != known:
            before = replace(clock, later_rates=tuple(rate for rate in clock.later_rates if rate[0] < visible_ticks))
            rate = (visible_ticks, before.time(visible_ticks), frequency)
            clock = replace(before, later_rates=(*before.later_rates, rate))
        return MeasuredClock(clock, self.reference, passed, ticks + passed)

    def _agree(self, frequency: int, ticks: int, elapsed: int) -> bool:
        """Whether so many ticks in so many ns are what the frequency says, as precisely as it is known."""
        expected = ticks * SECOND // frequency
        error = _WALL_ERROR + expected // _WALL_SLEW
        return abs(elapsed - expected) * self.measured_over <= error * self.measured_over + _WALL_ERROR * ticks

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "frequency": self.clock.frequency,
            "later_rates": [list(rate) for rate in self.clock.later_rates],
            "reference": list(self.reference),
            "measured_over": self.measured_over,
            "next_look": self.next_look,
            "doubt": self.doubt,
        }

    @staticmethod
    def from_json(start_time: int, value: dict[str, Any]) -> MeasuredClock:
        rates = tuple((ticks, time, frequency) for ticks, time, frequency in value["later_rates"])
        ticks, time = value["reference"]
        return MeasuredClock(
            ProcessClock(start_time, value["frequency"], rates),
            (ticks, time),
            value["measured_over"],
            value["next_look"],
            value["doubt"],
        )


def clock_of(process: ProcessRow) -> ProcessClock | None:
    """The clock of a process; None when nothing tells its frequency."""
    if process.tsc_frequency > 0:
        return ProcessClock(process.start_time, process.tsc_frequency)
    return None if process.clock is None else MeasuredClock.from_json(process.start_time, process.clock).clock


def _end(block: TimedBlock) -> tuple[int, int]:
    return block.end_ticks, block.end_time


def _frequency(ticks: int, elapsed: int) -> int:
    """Ticks per second, to the nearest; 0 when there is none."""
    if elapsed <= 0:
        return 0
    return min(_LARGEST, max(0, _rounded_quotient(ticks * SECOND, elapsed)))


def _rounded_quotient(dividend: int, divisor: int) -> int:
    """To the nearest, halves away from zero."""
    quotient = (2 * abs(dividend) + divisor) // (2 * divisor)
    return quotient if dividend >= 0 else -quotient
