"""Who answers a statement: the lake, or the private PostgreSQL with its catalogue. Decided by the names in it, so that
a statement which names something of the lake never gets the answer of an empty table."""

from __future__ import annotations

import re
from collections.abc import Iterable

from micromegas.query.functions.sql_text import Kind, tokens
from micromegas.serve.postgres.dialect import INSTANCE_SEPARATOR

# PostgreSQL did not know something in a statement, which the lake may know: functions, tables, columns, types, words.
UNKNOWN_TO_POSTGRES = frozenset(["42883", "42P01", "42703", "42704", "42601", "3F000"])
# What PostgreSQL takes for a letter and the engine for a space, which moves where a text in dollars begins.
_LETTER_OR_SPACE = re.compile(r"[^\S\x00-\x7f]")
_NO_LETTER = re.compile(r"[^\w$]")


class Routing:
    """`relations` are all views and view sets; `functions` those of the engine; `known` those that PostgreSQL has."""

    def __init__(self, relations: Iterable[str], functions: Iterable[str], known: frozenset[str]) -> None:
        self._relations = frozenset(relations)
        self._functions = frozenset(name.lower() for name in functions) - known

    def is_of_lake(self, sql: str) -> bool:
        """Whether the statement names a view or a function that only the lake has."""
        all_tokens = tokens(sql)
        if "$" in sql and _LETTER_OR_SPACE.search(sql):
            return True
        for index, token in enumerate(all_tokens):
            if token.kind is Kind.WORD and _NO_LETTER.search(token.value):
                # for PostgreSQL it may be part of a tag in dollars, and hide where a text begins
                return True
            if token.kind not in (Kind.WORD, Kind.QUOTED_NAME):
                continue
            if token.value in self._relations:
                return True
            if token.kind is Kind.QUOTED_NAME and token.value.partition(INSTANCE_SEPARATOR)[0] in self._relations:
                return True
            following = all_tokens[index + 1] if index + 1 < len(all_tokens) else None
            if token.value in self._functions and following is not None and following.value == "(":
                return True
            if token.value == "u" and following is not None and sql[token.end : token.end + 2] == '&"':
                # a name with escapes could be that of a view
                return True
        return False
