"""Values as they stand in SQL, for table functions, whose arguments can't be parameters, and for servers that know no
parameters."""

from __future__ import annotations


def text_literal(value: str) -> str:
    """A text in quotes, whatever it holds."""
    return "'" + value.replace("'", "''") + "'"
