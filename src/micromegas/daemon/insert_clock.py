"""The lake's insert time as the daemon sees it: its units, and which ranges of it are closed.

A range must never be called closed for the wall clock's sake: only the commit clock tells that nothing comes any more.
"""

from __future__ import annotations

from collections.abc import Callable

from micromegas.lake import Lake

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

Clock = Callable[[], int]
"""Gives the wall time in ns since the epoch."""


def floor_to(time: int, unit: int) -> int:
    """The last multiple of `unit` that is not after `time`."""
    return time // unit * unit


def retention_begin(now: int, days: int) -> int:
    """Insert time (ns) before which everything is forgotten: whole days of UTC, of which `days` are always kept."""
    return floor_to(now, DAY) - days * DAY


def closed_end(lake: Lake) -> int:
    """Every block with an insert time before this (ns) can be seen already; 0 for an empty lake."""
    watermark = lake.metadata.watermark()
    return watermark + 1 if watermark else 0


def close_until(lake: Lake, end: int, clock: Clock) -> bool:
    """See to it that no block can become visible with an insert time before `end` (ns).

    In a lake where nothing is being ingested the commit clock stands still: a commit of nothing sets it. False as long
    as `end` lies in the future.
    """
    if closed_end(lake) >= end:
        return True
    if clock() < end:
        return False
    return lake.metadata.insert_batch((), (), ()).insert_time + 1 >= end
