"""Times as people type them, in flags."""

from __future__ import annotations

from micromegas.cli.errors import UsageError
from micromegas.wire import typed_time_ns


def parse_time(flag: str, text: str, now: int) -> int:
    """ns since the epoch of `1h` and `-1h` (both: before `now`), `now`, or an ISO 8601 date or time. `flag` is for the
    error."""
    try:
        return typed_time_ns(text, now)
    except ValueError as error:
        raise UsageError(f"{flag} {error}") from None
