"""Values of flags as they stand in SQL, for table functions: these take nothing but literals."""

from __future__ import annotations


def text_literal(value: str) -> str:
    """A text in quotes, whatever it holds."""
    return "'" + value.replace("'", "''") + "'"
