"""What a call's metadata says about how to answer: time range, row limit, dictionaries. Unknown headers are ignored;
bad values are errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from micromegas.serve.audit import Caller
from micromegas.serve.flight.errors import invalid
from micromegas.wire import rfc3339_ns


@dataclass(frozen=True, slots=True)
class CallOptions:
    """`begin` and `end`: event times in ns since the epoch, both inclusive, each None when not given. `limit`: rows, or
    None. `body_compression` is `lz4`, `zstd` or None. `administers`, `user` (for whom rules are) and `caller` are no
    header's business alone: the server says who the caller is."""

    begin: int | None = None
    end: int | None = None
    limit: int | None = None
    preserve_dictionary: bool = False
    body_compression: str | None = None
    administers: bool = False
    user: str = ""
    caller: Caller = field(default_factory=Caller)


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
    compression = values.get("body_compression", "").lower() or None
    if compression not in _COMPRESSIONS:
        raise invalid(f"header body_compression: {compression[:100]!r} is neither lz4 nor zstd")
    return CallOptions(
        begin=begin,
        end=end,
        limit=None if limit is None else min(int(limit), 2**63 - 1),
        preserve_dictionary=values.get("preserve_dictionary", "").lower() == "true",
        body_compression=compression,
    )


_NAMES = frozenset({"query_range_begin", "query_range_end", "limit", "preserve_dictionary", "body_compression"})
_COMPRESSIONS = ("lz4", "zstd", None)


def parse_time(name: str, text: str) -> int:
    """ns since the epoch of an RFC 3339 time with offset; digits below a nanosecond are dropped. `name` is for the
    error only."""
    try:
        return rfc3339_ns(text)
    except ValueError as error:
        raise invalid(f"{name}: {error}") from None


def _text(key: str, value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise invalid(f"header {key} is not text") from None
