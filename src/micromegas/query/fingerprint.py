"""What statements have in common that differ in their values only."""

from __future__ import annotations

from micromegas.query.functions.sql_text import Kind, tokens

_VALUES = (Kind.TEXT, Kind.NUMBER, Kind.PARAMETER)
_OF_OPERATORS = frozenset("<>=!|~&@#^:")


def fingerprint(sql: str) -> str:
    """The statement with `?` for each text, number and parameter, words in lower case, single spaces between tokens:
    `select msg from log_entries where level <= ? limit ?`."""
    shown = ""
    end = 0
    for token in tokens(sql):
        if token.kind in _VALUES:
            value = "?"
        else:
            value = sql[token.start : token.end] if token.kind is Kind.QUOTED_NAME else token.value
        goes_on = token.start == end and value in _OF_OPERATORS and shown[-1:] in _OF_OPERATORS
        shown += value if goes_on or not shown else f" {value}"
        end = token.end
    return shown
