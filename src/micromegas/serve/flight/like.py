"""LIKE patterns of catalogue questions, in bounded time: as a regular expression one of many `%` would take longer than
anybody waits, in the event loop."""

from __future__ import annotations

from micromegas.serve.flight.errors import invalid

MAX_PATTERN = 1000
"""Characters; names of views are shorter."""

_MANY, _ONE = "%%", "__"
"""`%` and `_` where they aren't escaped: no single character is equal to them."""


def is_like(name: str, pattern: str) -> bool:
    """Whether `name` fits a LIKE pattern (`%`, `_`, `\\` escapes). Raises `FlightError` for a pattern that is too
    long."""
    if len(pattern) > MAX_PATTERN:
        raise invalid(f"a pattern of {len(pattern)} characters is over the limit of {MAX_PATTERN}")
    wanted = _tokens(pattern)
    at = place = 0
    # where the last `%` stands, and the first character that it doesn't stand for yet
    many, free = -1, 0
    while at < len(name):
        if place < len(wanted) and wanted[place] == _MANY:
            many, free = place, at
            place += 1
        elif place < len(wanted) and wanted[place] in (_ONE, name[at]):
            at += 1
            place += 1
        elif many >= 0:
            # it stands for one more; earlier ones need not be tried again
            free += 1
            at, place = free, many + 1
        else:
            return False
    return all(token == _MANY for token in wanted[place:])


def _tokens(pattern: str) -> list[str]:
    tokens = []
    parts = iter(pattern)
    for part in parts:
        if part == "\\":
            tokens.append(next(parts, part))
        else:
            tokens.append({"%": _MANY, "_": _ONE}.get(part, part))
    return tokens
