"""Times as clients of the query service spell them: as the protocol writes them, and as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGE = re.compile(r"-?(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_UNIT = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_FRACTION = re.compile(r"(?<=\d)\.(\d+)", re.ASCII)


def rfc3339_ns(text: str) -> int:
    """ns since the epoch of an RFC 3339 time; digits below a nanosecond are dropped. A time without an offset is
    refused, never guessed. `ValueError` says what is wrong with the text."""
    shown = repr(text[:100])
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{shown} is no rfc 3339 time with an offset, such as 2026-01-31T12:00:00Z")
    *fields, fraction, offset = match.groups()
    try:
        year, month, day, hour, minute, second = map(int, fields)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
    shift = 0
    if offset not in "Zz":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            raise ValueError(f"{shown}: offset out of range")
        shift = (hours * 3600 + minutes * 60) * (-1 if offset[0] == "-" else 1)
    delta = moment - _EPOCH
    seconds = delta.days * 86_400 + delta.seconds - shift
    time = seconds * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))
    return _fitting(time, shown)


def rfc3339_text(nanoseconds: int) -> str:
    """A time (ns since the epoch) as an RFC 3339 text in UTC, with no more digits of a second than it has."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    moment = _EPOCH + timedelta(seconds=seconds)
    # %Y has no leading zeros
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{digits}Z"


def typed_time_ns(text: str, now: int) -> int:
    """ns since the epoch of what a person types: `1h` or `-1h` (both: before `now`), `now`, or an ISO 8601 date with an
    optional time of day, in UTC unless it has an offset. `ValueError` says what is wrong with the text."""
    text = text.strip()
    if text == "now":
        return now
    shown = text[:100]
    if (age := _AGE.fullmatch(text)) is not None:
        try:
            return _fitting(now - _nanoseconds(float(age[1]) * _UNIT[age[2]]), shown)
        except OverflowError:
            raise ValueError(f"{shown}: too long ago") from None
    fraction = _FRACTION.search(text)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text) if fraction else text)
    except ValueError:
        raise ValueError(
            f"{shown}: no time; write an age such as 1h or 7d, or a time such as 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    below_second = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return _fitting(datetime_ns(moment) + below_second, shown)


def datetime_ns(moment: datetime) -> int:
    """ns since the epoch of a datetime with a time zone; a Timestamp of pandas keeps its nanoseconds."""
    return _nanoseconds(moment - _EPOCH) + getattr(moment, "nanosecond", 0)


def _fitting(time: int, shown: str) -> int:
    if not -(2**63) <= time < 2**63:
        raise ValueError(f"{shown}: does not fit nanoseconds since 1970 in 64 bits")
    return time


def _nanoseconds(delta: timedelta) -> int:
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000
