"""Refuses statements that could kill the process before the engine sees them: planning recurses, and a very deep
expression overflows the native stack, which no handler can catch. Must look at nothing but the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from micromegas.query.errors import QueryError

MAX_TEXT_BYTES = 1024 * 1024
MAX_LINKS = 2000
MAX_NESTING = 48
MAX_EXPANDED_LINKS = 10_000
MAX_CUBE_COLUMNS = 12
MAX_NAME_PARTS = 16

# What is skipped (texts, quoted names, comments) and what links or nests, in one pass over the statement. Where it ends
# a comment, a name or a quoted text later than the engine's parser does, what follows is run and was never counted.
_TOKEN = re.compile(
    r"""
      (?P<text> [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> \$(?P<tag>\w*)\$ )
    | (?P<placeholder> \$\w+ )
    | (?P<line_comment> --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<open> [(\[{] )
    | (?P<close> [)\]}] )
    | (?P<path> \.\s*(?:\w+|"[^"]*")(?:\s*\.\s*(?:\w+|"[^"]*"))* )
    | (?P<word> (?:[^\W\d]|[^\x00-\x7f])(?:[\w$]|[^\x00-\x7f])* )
    | (?P<number> 0[xX][0-9a-fA-F]+ | \d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)? )
    | (?P<symbol> [-+*/%|&^#<>=!~@?:]+ )
    | (?P<comma> , )
    | (?P<semicolon> ; )
    | (?P<other> \S )
    """,
    re.VERBOSE | re.DOTALL,
)

# Words that chain or nest expressions and queries as operators do.
_LINKS = frozenset(
    [
        "and",
        "or",
        "not",
        "union",
        "intersect",
        "except",
        "join",
        "case",
        "when",
        "is",
        "like",
        "ilike",
        "between",
        "similar",
        "div",
        "xor",
        "in",
        "any",
        "all",
        "exists",
        "collate",
        "at",
        "select",
        "with",
        "from",
        "notnull",
        "isnull",
        "rlike",
        "regexp",
        "overlaps",
        "member",
        "operator",
        "minus",
        "apply",
        "pivot",
        "unpivot",
        "lateral",
    ]
)
_ENDS_OF_FROM = frozenset(
    [
        "where",
        "group",
        "order",
        "having",
        "limit",
        "offset",
        "union",
        "intersect",
        "except",
        "select",
        "window",
        "qualify",
    ]
)

_OPEN = re.compile(r"\s*\(")
_DOT = re.compile(r"\s*\.")


class _Expansion:
    """How large a statement becomes when every name from WITH is replaced by its query, as the planner does: a few
    lines that name each other twice are more than any memory holds. Takes a name for what it could be, at worst."""

    def __init__(self) -> None:
        # By open parenthesis: links so far, the name that WITH gives to it, the name that stood before it.
        self._frames: list[tuple[int, str | None, str | None]] = [(0, None, None)]
        self._weights: dict[str, int] = {}
        self._candidate: str | None = None
        self._is_defined = False

    @property
    def links(self) -> int:
        return sum(links for links, *_ in self._frames)

    def add(self, links: int) -> None:
        own, name, before = self._frames[-1]
        self._frames[-1] = (own + links, name, before)

    def name(self, name: str, *, is_qualifier: bool) -> None:
        if name == "as" and self._candidate is not None:
            self._is_defined = True
        elif not (self._is_defined and name in ("not", "materialized")):
            if not is_qualifier:
                self.add(self._weights.get(name, 0))
            self._candidate, self._is_defined = name, False

    def open(self) -> None:
        self._frames.append((0, self._candidate if self._is_defined else None, self._candidate))
        self.other()

    def close(self) -> None:
        if len(self._frames) == 1:
            return
        links, name, before = self._frames.pop()
        if name is None:
            self.add(links)
        else:
            self._weights[name] = max(self._weights.get(name, 0), links + 1)
        # A list of column names may stand between the name and AS.
        self._candidate, self._is_defined = before, False

    def other(self) -> None:
        """Something that can't stand between a name and its definition."""
        self._candidate, self._is_defined = None, False


def checked_statement(sql: str) -> str:
    """The statement without its trailing semicolons. Raises `QueryError` when it is too long or too deep."""
    if len(sql) > MAX_TEXT_BYTES or len(sql.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
        raise QueryError("invalid", f"statement of more than {MAX_TEXT_BYTES} bytes")
    if "\0" in sql:
        raise QueryError("invalid", "statement with a NUL character")
    links = 0
    prefixes = 0
    previous = ""
    expansion = _Expansion()
    in_from = [False]
    in_cube = [False]
    cube_columns = 0
    trailing_semicolon: int | None = None
    position = 0
    while (token := _TOKEN.search(sql, position)) is not None:
        position = token.end()
        kind = token.lastgroup if token.lastgroup != "tag" else "dollar"
        if kind == "line_comment":
            continue
        if kind == "comment":
            position = _end_of_comment(sql, position)
            continue
        if kind == "semicolon":
            trailing_semicolon = token.start() if trailing_semicolon is None else trailing_semicolon
            continue
        trailing_semicolon = None
        last_word, previous = previous, ""
        before = links
        if kind not in ("open", "close", "word") and not token.group().startswith('"'):
            expansion.other()
        match kind:
            case "text":
                if token.group().startswith('"'):
                    name = token.group()[1:-1].replace('""', '"')
                    expansion.name(name, is_qualifier=_DOT.match(sql, position) is not None)
            case "dollar":
                end = sql.find(token.group(), position)
                position = len(sql) if end < 0 else end + len(token.group())
            case "open":
                # A chain of subscripts nests like a chain of operators.
                links += token.group() == "["
                in_from.append(False)
                in_cube.append(last_word == "cube")
                cube_columns += in_cube[-1]
                expansion.open()
            case "close":
                expansion.close()
                if len(in_from) > 1:
                    in_from.pop()
                    in_cube.pop()
            case "path":
                if token.group().count(".") > MAX_NAME_PARTS:
                    raise QueryError("invalid", f"name of more than {MAX_NAME_PARTS} parts")
            case "symbol":
                links += 1 if len(token.group()) <= 3 else len(token.group())
            case "comma":
                links += in_from[-1]
                cube_columns += in_cube[-1]
            case "word":
                word = previous = token.group().lower()
                links += word in _LINKS
                # The parser follows these without counting how deep it is.
                prefixes += word == "explain" or word == last_word == "interval"
                expansion.name(word, is_qualifier=_DOT.match(sql, position) is not None)
                if word == "from":
                    in_from[-1] = True
                elif word in _ENDS_OF_FROM:
                    in_from[-1] = False
        if links > MAX_LINKS:
            raise QueryError("invalid", f"statement with more than {MAX_LINKS} operators and joins")
        expansion.add(links - before)
        if expansion.links > MAX_EXPANDED_LINKS:
            raise QueryError("invalid", f"statement of more than {MAX_EXPANDED_LINKS} operators once WITH is expanded")
        if cube_columns > MAX_CUBE_COLUMNS:
            raise QueryError("invalid", f"statement with more than {MAX_CUBE_COLUMNS} columns in CUBE")
        if prefixes > MAX_NESTING:
            raise QueryError("invalid", f"statement with more than {MAX_NESTING} EXPLAIN or INTERVAL in a row")
        if len(in_from) > MAX_NESTING:
            raise QueryError("invalid", f"statement with more than {MAX_NESTING} nested parentheses")
    return (sql if trailing_semicolon is None else sql[:trailing_semicolon]).strip()


def placeholders(sql: str) -> list[str]:
    """Names of the placeholders without the `$`: numbered ones in order of number, then others as they appear."""
    names: dict[str, None] = {}
    position = 0
    while (token := _TOKEN.search(sql, position)) is not None:
        position = token.end()
        if token.lastgroup == "comment":
            position = _end_of_comment(sql, position)
        elif token.lastgroup in ("dollar", "tag"):
            end = sql.find(token.group(), position)
            position = len(sql) if end < 0 else end + len(token.group())
        elif token.lastgroup == "placeholder":
            names[token.group()[1:]] = None
    return sorted(names, key=lambda name: (0, int(name)) if name.isdecimal() else (1, 0))


def function_names(sql: str) -> Iterator[str]:
    """Words in lower case that call a function: before a parenthesis, or of those that stand without one."""
    position = 0
    while (token := _TOKEN.search(sql, position)) is not None:
        position = token.end()
        match token.lastgroup:
            case "comment":
                position = _end_of_comment(sql, position)
            case "dollar" | "tag":
                end = sql.find(token.group(), position)
                position = len(sql) if end < 0 else end + len(token.group())
            case "word":
                word = token.group().lower()
                if word.startswith("current_") or _OPEN.match(sql, position):
                    yield word


def _end_of_comment(sql: str, position: int) -> int:
    """Position after a block comment; they nest."""
    depth = 1
    while depth:
        begin, end = sql.find("/*", position), sql.find("*/", position)
        if end < 0:
            return len(sql)
        if 0 <= begin < end:
            depth, position = depth + 1, begin + 2
        else:
            depth, position = depth - 1, end + 2
    return position
