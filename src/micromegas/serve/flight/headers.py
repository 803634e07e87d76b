"""What a call's metadata says about how to answer: time range, row limit, dictionaries. Unknown headers are ignored;
bad values are errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from micromegas.serve.flight.errors import invalid

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """`begin` and `end`: event times in ns since the epoch, both inclusive, each None when not given. `limit`: rows, or
    None."""

    begin: int | None = None
    end: int | None = None
    limit: int | None = None
    preserve_dictionary: bool = False


def read_options(metadata: Iterable[tuple[str, str | bytes]]) -> CallOptions:
    """Options out of a call's headers; the last of a repeated header counts, an empty value counts as absent."""
    values = {key: _text(key, value) for key, value in metadata if key in _NAMES}
    begin, end = (
        parse_time(name, values[name]) if values.get(name) else None
        for name in ("query_range_begin", "query_range_end")
    )
    limit = values.get("limit") or None
    if limit is not None and not re.fullmatch(r"[0-9]{1,19}", limit):
        raise invalid(f"header limit: {limit[:100]!r} is no number of rows")
    return CallOptions(
        begin=begin,
        end=end,
        limit=None if limit is None else min(int(limit), 2**63 - 1),
        preserve_dictionary=values.get("preserve_dictionary", "").lower() == "true",
    )


_NAMES = frozenset({"query_range_begin", "query_range_end", "limit", "preserve_dictionary"})


def parse_time(name: str, text: str) -> int:
    """ns since the epoch of an RFC 3339 time with offset; digits below a nanosecond are dropped. `name` is for the
    error only."""
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise invalid(f"{name}: {text[:100]!r} is no rfc 3339 time with an offset, such as 2026-01-31T12:00:00Z")
    *fields, fraction, offset = match.groups()
    try:
        year, month, day, hour, minute, second = map(int, fields)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise invalid(f"{name}: {text[:100]!r}: {error}") from None
    shift = 0
    if offset not in "Zz":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            raise invalid(f"{name}: {text[:100]!r}: offset out of range")
        shift = (hours * 3600 + minutes * 60) * (-1 if offset[0] == "-" else 1)
    delta = moment - _EPOCH
    seconds = delta.days * 86_400 + delta.seconds - shift
    time = seconds * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))
    if not -(2**63) <= time < 2**63:
        raise invalid(f"{name}: {text[:100]!r} does not fit nanoseconds since 1970 in 64 bits")
    return time


def _text(key: str, value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise invalid(f"header {key} is not text") from None
