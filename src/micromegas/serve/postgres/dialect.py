"""What clients of PostgreSQL write and the engine reads otherwise, moved from the one to the other by its tokens.

Must never touch a text, a name or a comment, and leaves alone what it doesn't know, so that the engine says what is
wrong with it.
"""

from __future__ import annotations

from micromegas.query.functions.sql_text import Kind, Token, tokens
from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.parameters import array_items

INSTANCE_SEPARATOR = ":"
DATABASE = "micromegas"
"""The one database that there is."""

_CATALOG = "pg_catalog"
# Types of PostgreSQL by those that hold the same here.
_TYPES = {
    "uuid": "text",
    "name": "text",
    "bpchar": "text",
    "citext": "text",
    "json": "text",
    "jsonb": "text",
    "oid": "bigint",
    "regclass": "text",
}
_NUMBERS = frozenset(
    ["integer", "int", "int2", "int4", "int8", "bigint", "smallint", "real", "numeric", "float4", "float8"]
)


def engine_sql(sql: str, view_sets: frozenset[str]) -> str:
    """The statement as the engine reads it; instances of `view_sets` may be named as tables."""
    return _Rewriting(sql, view_sets).text()


class _Rewriting:
    def __init__(self, sql: str, view_sets: frozenset[str]) -> None:
        self._sql = sql
        self._view_sets = view_sets
        self._tokens = tokens(sql)
        self._edits: list[tuple[int, int, str]] = []
        self._last_edit = -1
        self._place = 0

    def text(self) -> str:
        while self._place < len(self._tokens):
            self._rewrite_here()
            self._place += 1
        out, copied = [], 0
        for start, end, replacement in sorted(self._edits):
            if start < copied:
                continue
            out += [self._sql[copied:start], replacement]
            copied = end
        out.append(self._sql[copied:])
        return "".join(out)

    def _rewrite_here(self) -> None:
        place = self._place
        token = self._tokens[place]
        if token.kind is Kind.QUOTED_NAME and INSTANCE_SEPARATOR in token.value:
            self._instance(place)
        elif self._is_word(place, "operator") and self._is(place + 1, "(") and self._is_word(place + 2, _CATALOG):
            self._operator(place)
        elif self._is(place + 1, ".") and self._at(place + 2) is not None and self._is_prefix(place):
            self._replace(place, place + 2, "")
        elif self._is_word(place, "fetch") and self._is_word(place + 1, "first", "next"):
            self._fetch(place)
        elif self._is_word(place, "any", "some", "all") and self._is(place + 1, "("):
            self._list(place)
        elif self._is(place, ":") and self._is(place + 1, ":"):
            self._cast(place + 2)
        elif self._is(place, "-") and self._is(place + 1, ">"):
            self._member(place)

    def _instance(self, place: int) -> None:
        """A view set and an id in one quoted name: what tools that know only tables can say."""
        view_set, _, instance = self._tokens[place].value.partition(INSTANCE_SEPARATOR)
        if view_set not in self._view_sets or not _stands_for_table(self._tokens, place):
            return
        first = place
        if self._is(place - 1, ".") and place >= 2:
            first = place - 2
        call = f"view_instance({_literal(view_set)}, {_literal(instance)})"
        following = self._at(place + 1)
        # a call has no name of its own to qualify columns by
        named = following is not None and (following.kind is Kind.QUOTED_NAME or self._is_word(place + 1, "as"))
        alias = following is not None and following.kind is Kind.WORD and following.value not in _ENDS_OF_TABLE
        self._replace(first, place + 1, call if named or alias else f"{call} AS {_quoted(view_set)}")

    def _operator(self, place: int) -> None:
        """OPERATOR(pg_catalog.~)"""
        end = place + 4
        while (token := self._at(end)) is not None and token.kind is Kind.SYMBOL and token.value != ")":
            end += 1
        if self._is(place + 3, ".") and self._is(end, ")"):
            operator = "".join(self._tokens[each].value for each in range(place + 4, end))
            self._replace(place, end + 1, operator)
            self._place = end

    def _is_prefix(self, place: int) -> bool:
        """Whether this is the name of the database or of the catalogue's schema, which mean nothing here."""
        name = self._tokens[place].value
        return name == _CATALOG or (name == DATABASE and self._is(place + 3, "."))

    def _fetch(self, place: int) -> None:
        """FETCH FIRST 3 ROWS ONLY"""
        count = self._at(place + 2)
        is_counted = count is not None and count.kind in (Kind.NUMBER, Kind.PARAMETER)
        rows = place + 3 if is_counted else place + 2
        if self._is_word(rows, "row", "rows") and self._is_word(rows + 1, "only"):
            self._replace(place, rows + 2, f"LIMIT {count.value if count is not None and is_counted else '1'}")
            self._place = rows + 1

    def _list(self, place: int) -> None:
        """= ANY ('{1,2}'::integer[]), as postgres_fdw writes IN."""
        text = self._at(place + 2)
        if text is None or text.kind is not Kind.TEXT or not text.value.startswith("'"):
            return
        end = place + 3
        kind: list[str] = []
        if self._is(end, ":") and self._is(end + 1, ":"):
            end += 2
            while (token := self._at(end)) is not None and token.kind in (Kind.WORD, Kind.QUOTED_NAME):
                kind.append(token.value)
                end += 1
            if self._is(end, "[") and self._is(end + 1, "]"):
                end += 2
        if not self._is(end, ")"):
            return
        is_all = self._is_word(place, "all")
        negated = self._is(place - 1, ">") and self._is(place - 2, "<")
        equal = self._is(place - 1, "=") and not self._is(place - 2, "<", ">", "!")
        if not ((equal and not is_all) or (negated and is_all)):
            return
        try:
            items = array_items(text.value[1:-1].replace("''", "'"))
        except PostgresError:
            return
        if not items:
            return
        values = ", ".join("NULL" if item is None else _value(item, kind) for item in items)
        start = place - 2 if negated else place - 1
        self._replace(start, end + 1, f"{'NOT ' if negated else ''}IN ({values})")
        self._place = end

    def _cast(self, place: int) -> None:
        """A type after `::`, behind its schema or not."""
        if self._is_word(place, _CATALOG) and self._is(place + 1, "."):
            self._replace(place, place + 2, "")
            place += 2
        token = self._at(place)
        if token is not None and token.value in _TYPES:
            self._replace(place, place + 1, _TYPES[token.value])
        self._place = place

    def _member(self, place: int) -> None:
        """properties ->> 'name'"""
        as_text = self._is(place + 2, ">")
        right = place + 3 if as_text else place + 2
        value = self._at(right)
        left = self._operand_before(place)
        if left is None or value is None or value.kind not in (Kind.TEXT, Kind.PARAMETER):
            return
        operand = self._sql[self._tokens[left].start : self._tokens[place - 1].end]
        name = self._sql[value.start : value.end]
        if self._last_edit >= self._tokens[left].start:
            return
        end = right + 1
        if self._is(end, ":") and self._is(end + 1, ":") and self._is_word(end + 2, "text"):
            end += 3
        self._replace(left, end, f"property_get({operand}, {name})" if as_text else f"jsonb_get({operand}, {name})")
        self._place = end - 1

    def _operand_before(self, place: int) -> int | None:
        """Where the column before an operator begins."""
        first = place - 1
        token = self._at(first)
        if token is None or token.kind not in (Kind.WORD, Kind.QUOTED_NAME):
            return None
        while self._is(first - 1, ".") and first >= 2:
            first -= 2
        return first

    def _at(self, place: int) -> Token | None:
        return self._tokens[place] if 0 <= place < len(self._tokens) else None

    def _is(self, place: int, *symbols: str) -> bool:
        token = self._at(place)
        return token is not None and token.kind is Kind.SYMBOL and token.value in symbols

    def _is_word(self, place: int, *words: str) -> bool:
        token = self._at(place)
        return token is not None and token.kind is Kind.WORD and token.value in words

    def _replace(self, first: int, end: int, text: str) -> None:
        """Tokens [first, end) become `text`."""
        stop = self._tokens[end].start if text == "" and end < len(self._tokens) else self._tokens[end - 1].end
        self._edits.append((self._tokens[first].start, stop, text))
        self._last_edit = max(self._last_edit, self._tokens[first].start)


_ENDS_OF_TABLE = frozenset(
    [
        "where",
        "group",
        "order",
        "having",
        "limit",
        "offset",
        "fetch",
        "union",
        "intersect",
        "except",
        "join",
        "inner",
        "left",
        "right",
        "full",
        "cross",
        "natural",
        "on",
        "using",
        "window",
        "for",
        "tablesample",
    ]
)


def _stands_for_table(all_tokens: list[Token], place: int) -> bool:
    """After FROM or JOIN, ONLY, a comma, or a schema."""
    before = all_tokens[place - 1] if place else None
    if before is None:
        return False
    if before.kind is Kind.WORD:
        return before.value in ("from", "join", "only", "table")
    return before.kind is Kind.SYMBOL and before.value in (".", ",", "(")


def _value(item: str, kind: list[str]) -> str:
    name = " ".join(kind)
    if name in _NUMBERS or name == "double precision":
        return f"CAST({_literal(item)} AS {name})"
    if not kind or name in ("text", "character varying", "varchar", *_TYPES):
        return _literal(item)
    return f"CAST({_literal(item)} AS {name})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
