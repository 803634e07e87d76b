"""Placeholders of a statement: `?`, `$1`, `$name`. Reads SQL only as far as needed to tell code from strings, quoted
names and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass

from micromegas.query import QueryError

# In order: comments (block comments are scanned on, because they nest), strings, quoted names, dollar quotes,
# placeholders, words.
# A number of more digits is no placeholder, and the engine's to refuse.
# Possessive, and what is never closed ends with the text: time stays linear whatever the text holds.
_TOKEN = re.compile(
    r"""--[^\n]*
    | (?P<comment>/\*)
    | [eE]'(?:[^'\\]++|\\.|'')*+(?:'|\Z)
    | '(?:[^']++|'')*+(?:'|\Z)
    | "(?:[^"]++|"")*+(?:"|\Z)
    | `[^`]*+(?:`|\Z)
    | (?P<quote>\$(?:[A-Za-z_]\w*)?\$)
    | (?P<dollar>\$(?:[0-9]{1,9}(?!\d)|[A-Za-z_]\w*))
    | (?P<mark>\?)
    | [A-Za-z_][\w$]*""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class NumberedStatement:
    """`sql` with every `?` written as `$1`, `$2` …; `names` are its placeholders without `$`, each once: numbers
    in their order, then names in order of appearance."""

    sql: str
    names: tuple[str, ...]


def number_placeholders(sql: str) -> NumberedStatement:
    """Raises a `QueryError` for a statement that mixes `?` with `$…`: their numbers would be ambiguous."""
    out: list[str] = []
    names: dict[str, None] = {}
    marks = 0
    copied = position = 0
    while (match := _TOKEN.search(sql, position)) is not None:
        position = match.end()
        if match["comment"]:
            position = _end_of_comment(sql, match.start())
        elif match["quote"]:
            closing = sql.find(match["quote"], position)
            position = len(sql) if closing < 0 else closing + len(match["quote"])
        elif match["dollar"]:
            names[match["dollar"][1:]] = None
        elif match["mark"]:
            marks += 1
            out += [sql[copied : match.start()], f"${marks}"]
            copied = position
    if marks and names:
        raise QueryError("invalid", "the statement mixes ? and $ placeholders")
    if marks:
        names = {str(number): None for number in range(1, marks + 1)}
    out.append(sql[copied:])
    in_order = sorted(names, key=lambda name: int(name) if name.isdigit() else len(sql))
    return NumberedStatement("".join(out), tuple(in_order))


def _end_of_comment(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)
