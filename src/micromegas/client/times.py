"""Times as callers give them, as the protocol spells them. Naive datetimes are refused, never guessed."""

from __future__ import annotations

import operator
import time
from datetime import datetime

from micromegas.wire import datetime_ns, rfc3339_text, typed_time_ns

Time = int | str | datetime
"""ns since the epoch, a datetime with a time zone (a Timestamp of pandas too), or a text as people type it: `-1h` and
`1h` (both: before now), `now`, or an ISO 8601 date or time, in UTC unless it has an offset."""


def nanoseconds(moment: Time) -> int:
    """ns since the epoch; `ValueError` for a datetime without a zone, and for a text that is no time, `TypeError` for
    what is neither."""
    if isinstance(moment, str):
        return typed_time_ns(moment, time.time_ns())
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"time {moment.isoformat()} has no time zone")
        return datetime_ns(moment)
    try:
        return operator.index(moment)
    except TypeError:
        kind = type(moment).__name__
        raise TypeError(f"a time is ns since the epoch, a datetime with a time zone, or a text; not a {kind}") from None


def rfc3339(moment: Time) -> str:
    """The text of a `query_range_…` header; `ValueError` also for a time outside of the years 1 to 9999."""
    try:
        return rfc3339_text(nanoseconds(moment))
    except OverflowError:
        raise ValueError(f"time {moment} ns is outside the years 1 to 9999") from None
