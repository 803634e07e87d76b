"""The tokens of an SQL text in the dialect of PostgreSQL, as far as finding calls in it needs them.

Must never fail: what it can't read is left to the real parser, which has the better message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a token is."""

    WORD = auto()
    QUOTED_NAME = auto()
    TEXT = auto()
    NUMBER = auto()
    PARAMETER = auto()
    SYMBOL = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """The characters [start, end) of the text; spaces and comments are no tokens."""

    kind: Kind
    start: int
    end: int
    value: str
    """The text itself, a word in lower case, a quoted name without its quotes."""


# a carriage return ends a comment, too: for PostgreSQL as for the engine's parser
_SPACE_OR_LINE_COMMENT = re.compile(r"(?:\s+|--[^\n\r]*)+")
_PATTERNS = [
    # a backslash escapes in E'…' only, and in what goes on with it on a later line
    (
        Kind.TEXT,
        re.compile(
            r"[eE]'(?:[^'\\]|\\.|'')*+'"
            r"(?:(?:[ \t\f\v]|--[^\n\r]*)*+[\n\r](?:\s|--[^\n\r]*[\n\r])*+'(?:[^'\\]|\\.|'')*+')*+",
            re.DOTALL,
        ),
    ),
    (Kind.TEXT, re.compile(r"(?:[nNbBxX]|[uU]&)?'(?:[^']|'')*+'")),
    (Kind.QUOTED_NAME, re.compile(r'"(?:[^"]|"")*+"')),
    (Kind.PARAMETER, re.compile(r"\$\w+")),
    (Kind.NUMBER, re.compile(r"0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")),
    # outside of ASCII everything belongs to names, letters or not
    (Kind.WORD, re.compile(r"(?:[^\W\d]|[^\x00-\x7f])(?:[\w$]|[^\x00-\x7f])*")),
]
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# as the engine's parser takes it; for PostgreSQL a tag that begins with a digit is an error
_DOLLAR_TAG = re.compile(r"\$\w*\$")
_ESCAPED_BEGIN = re.compile(r"[eE]'")


def tokens(sql: str) -> list[Token]:
    """All tokens in order; an unclosed quotation or comment ends them."""
    return list(_scan(sql))


def _scan(sql: str) -> Iterator[Token]:
    position = 0
    while position < len(sql):
        if space := _SPACE_OR_LINE_COMMENT.match(sql, position):
            position = space.end()
        elif sql.startswith("/*", position):
            position = _comment_end(sql, position)
        else:
            token = _token_at(sql, position)
            if token is None:
                return
            yield token
            position = token.end


def _token_at(sql: str, position: int) -> Token | None:
    """None for a quotation without its end, which must not be looked for again from within."""
    if tag := _DOLLAR_TAG.match(sql, position):
        close = sql.find(tag.group(), tag.end())
        end = close + len(tag.group())
        return None if close < 0 else Token(Kind.TEXT, position, end, sql[position:end])
    for kind, pattern in _PATTERNS:
        if match := pattern.match(sql, position):
            value = match.group()
            if kind is Kind.WORD:
                if _ESCAPED_BEGIN.match(sql, position):
                    return None
                value = value.lower()
            elif kind is Kind.QUOTED_NAME:
                value = value[1:-1].replace('""', '"')
            return Token(kind, position, match.end(), value)
    return None if sql[position] in "'\"" else Token(Kind.SYMBOL, position, position + 1, sql[position])


def _comment_end(sql: str, position: int) -> int:
    depth = 0
    while edge := _COMMENT_EDGE.search(sql, position):
        position = edge.end()
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return position
    return len(sql)
