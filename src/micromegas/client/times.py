"""Times of query ranges as the protocol spells them. Event times are ns since the epoch; naive datetimes are refused,
never guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

Time = int | str | datetime
"""ns since the epoch, an RFC 3339 text with an offset, or a datetime with a time zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(time: Time) -> str:
    """The text of a `query_range_…` header; `ValueError` for a time without a zone or outside the years 1 to 9999."""
    if isinstance(time, str):
        return time
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"time {time.isoformat()} has no time zone")
        return time.isoformat()
    seconds, nanoseconds = divmod(time, 1_000_000_000)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"time {time} ns is outside the years 1 to 9999") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z" if moment.year >= 1000 else moment.isoformat()
