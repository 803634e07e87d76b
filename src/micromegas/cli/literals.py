"""Conditions of flags as they stand in SQL."""

from __future__ import annotations

from collections.abc import Iterable

from micromegas.client.sql_literal import text_literal
from micromegas.wire import rfc3339_text


def time_literal(nanoseconds: int) -> str:
    """A time (ns since the epoch)."""
    return f"arrow_cast({text_literal(rfc3339_text(nanoseconds))}, 'Timestamp(Nanosecond, Some(\"+00:00\"))')"


def containing(column: str, part: str) -> str:
    """The condition that a column contains a text, in whatever case."""
    return f"contains(lower({column}), lower({text_literal(part)}))"


def all_of(conditions: Iterable[str | None]) -> str:
    """The condition that those hold which are given."""
    return " AND ".join(each for each in conditions if each is not None) or "true"
