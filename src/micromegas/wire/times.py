"""Times as clients of the query service spell them. A time without an offset is refused, never guessed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339_ns(text: str) -> int:
    """ns since the epoch of an RFC 3339 time with an offset; digits below a nanosecond are dropped. `ValueError` says
    what is wrong with the text."""
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
    if not -(2**63) <= time < 2**63:
        raise ValueError(f"{shown} does not fit nanoseconds since 1970 in 64 bits")
    return time


def rfc3339_text(nanoseconds: int) -> str:
    """A time (ns since the epoch) as an RFC 3339 text in UTC, with no more digits of a second than it has."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{digits}Z"
