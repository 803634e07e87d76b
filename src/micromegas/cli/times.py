"""Times as people type them: an age before now, or a date with an optional time of day (UTC unless it has an
offset)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from micromegas.cli.errors import CliError

_AGE = re.compile(r"-?(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNIT = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_FRACTION = re.compile(r"(?<=\d)\.(\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(flag: str, text: str, now: int) -> int:
    """ns since the epoch of `1h` and `-1h` (both: before `now`), `now`, or an ISO 8601 date or time. `flag` is for the
    error."""
    text = text.strip()
    if text == "now":
        return now
    if (age := _AGE.fullmatch(text)) is not None:
        try:
            return now - _nanoseconds(float(age[1]) * _UNIT[age[2]])
        except OverflowError:
            raise CliError(f"{flag} {text}: too long ago") from None
    fraction = _FRACTION.search(text)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text) if fraction else text)
    except ValueError:
        raise CliError(
            f"{flag} {text}: no time; write an age such as 1h or 7d, or a time such as 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    below_second = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return _nanoseconds(moment - _EPOCH) + below_second


def _nanoseconds(delta: timedelta) -> int:
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000
