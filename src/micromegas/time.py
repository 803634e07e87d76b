"""Times as the original's client reads and writes them. Ours takes all of them as they are, and texts like `-1h`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import overload

_DELTA = re.compile(r"(\d+)([mhd])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@overload
def format_datetime(value: datetime | str) -> str: ...
@overload
def format_datetime(value: None) -> None: ...
def format_datetime(value: datetime | str | None) -> str | None:
    """RFC 3339 text of a time, None of None; `RuntimeError` for a time without a zone and for anything else."""
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_datetime(value)
    if not isinstance(value, datetime):
        raise RuntimeError(f"a time is needed, not a {type(value).__name__}")
    if value.tzinfo is None:
        raise RuntimeError(f"time {value.isoformat()} has no time zone")
    return value.isoformat()


def parse_datetime(value: str) -> datetime:
    """The time of an ISO 8601 text; `ValueError` for a text that is none."""
    return datetime.fromisoformat(value)


def parse_time_delta(user_string: str) -> timedelta:
    """`30m`, `1h` or `7d`; `RuntimeError` for anything else."""
    match = _DELTA.fullmatch(user_string.strip())
    if match is None:
        raise RuntimeError(f"{user_string[:100]!r}: no duration; write 30m, 1h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
