"""What clients of PostgreSQL write and the engine reads otherwise, moved from the one to the other by its tokens.

Must never touch a text, a name or a comment, and leaves alone what it doesn't know, so that the engine says what is
wrong with it; what the engine would take for something else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from micromegas.query.functions.sql_text import Kind, Token
from micromegas.serve.postgres import json_access
from micromegas.serve.postgres.edits import Edits
from micromegas.serve.postgres.errors import not_offered
from micromegas.serve.postgres.literals import literal, quoted, text_of
from micromegas.serve.postgres.parameters import array_items
from micromegas.serve.postgres.patterns import bytes_of_hex, interval_text, similar_pattern, time_pattern
from micromegas.serve.postgres.result_names import select_list_end, word_before

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
# Functions by those that do the same here.
_FUNCTIONS = {
    "variance": "var_samp",
    "every": "bool_and",
    "sign": "signum",
    "ceiling": "ceil",
    "clock_timestamp": "now",
    "statement_timestamp": "now",
    "transaction_timestamp": "now",
}
# Parts of a time that PostgreSQL gives with their fraction: by how many microseconds they are.
_FRACTIONS = {"second": 1_000_000, "seconds": 1_000_000, "millisecond": 1000, "milliseconds": 1000}
_TIME_PATTERNS = frozenset(["to_char", "to_date", "to_timestamp"])
_COMPARISONS = frozenset("<>=")
# The engine reads each byte as a letter, and no halves of letters.
_OF_BYTES = re.compile(r"\\(?:[xuU]|[0-7])")
# Times that have names.
_MOMENTS = {
    "now": "now()",
    "today": "date_trunc('day', now())",
    "yesterday": "(date_trunc('day', now()) - interval '1 day')",
    "tomorrow": "(date_trunc('day', now()) + interval '1 day')",
    "epoch": "'1970-01-01T00:00:00Z'",
    "infinity": "'2262-04-11T23:47:16.854775807Z'",
    "-infinity": "'1677-09-21T00:12:44Z'",
}


@dataclass(frozen=True, slots=True)
class Known:
    """Names of the lake: view sets, of which one may be named with an instance, and columns of JSON and of times."""

    view_sets: frozenset[str]
    json: frozenset[str]
    moments: frozenset[str]


def engine_sql(sql: str, known: Known) -> str:
    """The statement as the engine reads it; `PostgresError` for what it would read as something else."""
    return _Rewriting(sql, known).rewritten()


class _Rewriting:
    def __init__(self, sql: str, known: Known) -> None:
        self._known = known
        self._edits = Edits(sql)
        self._depth = 0
        """Of brackets that are open."""
        self._lists: dict[int, int] = {}
        """Where the lists of columns of the SELECTs end that were read last, by their depths."""

    def rewritten(self) -> str:
        edits = self._edits
        while (place := edits.place) < len(edits.tokens):
            self._rewrite_here(place)
            edits.place += 1
            for each in range(place, edits.place):
                self._depth += int(edits.is_symbol(each, "(")) - int(edits.is_symbol(each, ")"))
        return edits.text()

    def _rewrite_here(self, place: int) -> None:
        edits = self._edits
        token = edits.tokens[place]
        if token.kind is Kind.TEXT:
            self._text(place, token)
        elif token.kind is Kind.QUOTED_NAME and INSTANCE_SEPARATOR in token.value:
            self._instance(place)
        elif json_access.rewrite(edits, place, self._known.json):
            return
        elif (
            edits.is_word(place, "operator") and edits.is_symbol(place + 1, "(") and edits.is_word(place + 2, _CATALOG)
        ):
            self._operator(place)
        elif edits.is_symbol(place + 1, ".") and edits.at(place + 2) is not None and self._is_prefix(place):
            edits.replace(place, place + 2, "")
        elif edits.is_word(place, "any", "some", "all") and edits.is_symbol(place + 1, "("):
            self._list(place)
        elif edits.is_cast(place):
            self._cast(place + 2)
        elif token.kind is Kind.WORD:
            self._word(place, token.value)

    def _word(self, place: int, word: str) -> None:
        edits = self._edits
        if word == "fetch" and edits.is_word(place + 1, "first", "next"):
            self._fetch(place)
        elif word == "operator" and edits.is_symbol(place + 1, "(") and edits.is_word(place + 2, _CATALOG):
            self._operator(place)
        elif word == "similar" and edits.is_word(place + 1, "to"):
            self._similar(place)
        elif word == "tablesample" and (edits.is_name(place - 1) or edits.is_symbol(place - 1, ")")):
            raise not_offered("TABLESAMPLE is not offered", "bound the time, or say LIMIT")
        elif word == "select":
            self._lists[self._depth] = select_list_end(edits, place)
        elif word == "exists" and place < self._lists.get(self._depth, 0):
            self._exists(place)
        elif word == "interval" and (text := text_of(edits.at(place + 1))) is not None and ":" in text:
            edits.replace(place + 1, place + 2, literal(interval_text(text)))
        elif word == "cast" and edits.is_symbol(place + 1, "("):
            self._cast_call(place)
        elif word == "current_date" and self._moves(place + 1):
            edits.replace(place, place + 1, "CAST(current_date AS timestamp)")
        elif word == "localtimestamp" and not edits.is_symbol(place - 1, "."):
            edits.replace(place, place + 1, "CAST(now() AS timestamp)")
        elif edits.is_symbol(place + 1, "("):
            self._call(place, word)

    def _call(self, place: int, name: str) -> None:
        edits = self._edits
        if name in _FUNCTIONS:
            edits.replace(place, place + 1, _FUNCTIONS[name])
        elif name == "extract" and edits.is_word(place + 3, "from"):
            self._fraction(place, edits.tokens[place + 2].value.lower().strip("'"), place + 4)
        elif name == "date_part" and edits.is_symbol(place + 3, ","):
            self._fraction(place, (text_of(edits.at(place + 2)) or "").lower(), place + 4)
        elif name == "mod":
            arguments = edits.arguments(place + 1)
            if arguments is not None and len(arguments) == 2:
                edits.replace(place, place + 1, "")
                edits.replace(arguments[0][1], arguments[0][1] + 1, ") % (")
                edits.insert_before(place + 1, "(")
                edits.insert_behind(arguments[1][1], ")")
        elif name in _TIME_PATTERNS:
            arguments = edits.arguments(place + 1)
            if arguments is not None and len(arguments) == 2:
                pattern = text_of(edits.at(arguments[1][0]))
                if pattern is not None and arguments[1][1] == arguments[1][0] + 1:
                    edits.replace(*arguments[1], literal(time_pattern(pattern)))

    def _fraction(self, place: int, part: str, first: int) -> None:
        """extract(second FROM …)"""
        close = self._edits.closing(place + 1)
        if part in _FRACTIONS and close is not None:
            self._edits.replace(place, first, "(date_part('microsecond', ")
            self._edits.insert_behind(close, f" / {_FRACTIONS[part]}.0)")

    def _text(self, place: int, token: Token) -> None:
        """A text, of which its type may make something else."""
        edits = self._edits
        text = text_of(token)
        if text is None or json_access.rewrite(edits, place, self._known.json):
            return
        if edits.is_cast(place + 1):
            kind, end = self._type(place + 3)
            if edits.is_symbol(end, "[") and edits.is_symbol(end + 1, "]"):
                edits.replace(place, end + 2, _array(text, kind))
                edits.place = end + 1
            elif kind == ["bytea"] and text.startswith("\\x"):
                edits.replace(place, end, f"X'{bytes_of_hex(text)}'")
                edits.place = end - 1
            elif kind == ["interval"] and ":" in text:
                edits.replace(place, place + 1, literal(interval_text(text)))
            elif kind[:1] in (["timestamp"], ["timestamptz"]) and text.lower() in _MOMENTS:
                edits.replace(place, place + 1, _MOMENTS[text.lower()])
        elif text.lower() in _MOMENTS and self._is_compared_moment(place):
            edits.replace(place, place + 1, _MOMENTS[text.lower()])
        elif _OF_BYTES.search(token.value) and token.value[0] in "eE":
            edits.replace(place, place + 1, literal(text))

    def _is_compared_moment(self, place: int) -> bool:
        """Whether a column of times and a comparison stand before."""
        edits = self._edits
        first = place - 1
        while edits.is_symbol(first, *_COMPARISONS):
            first -= 1
        column = edits.at(first)
        return first < place - 1 and column is not None and edits.is_name(first) and column.value in self._known.moments

    def _type(self, place: int) -> tuple[list[str], int]:
        """The words of a type, and what stands behind them."""
        edits = self._edits
        if edits.is_word(place, _CATALOG) and edits.is_symbol(place + 1, "."):
            place += 2
        if (token := edits.at(place)) is None or not edits.is_name(place):
            return [], place
        kind, end = [token.value], place + 1
        while edits.is_word(end, "precision", "varying", "with", "without", "time", "zone"):
            kind.append(edits.tokens[end].value)
            end += 1
        return kind, end

    def _instance(self, place: int) -> None:
        """A view set and an id in one quoted name: what tools that know only tables can say."""
        edits = self._edits
        view_set, _, instance = edits.tokens[place].value.partition(INSTANCE_SEPARATOR)
        if view_set not in self._known.view_sets or not _stands_for_table(edits.tokens, place):
            return
        first = place
        if edits.is_symbol(place - 1, ".") and place >= 2:
            first = place - 2
        call = f"view_instance({literal(view_set)}, {literal(instance)})"
        following = edits.at(place + 1)
        # a call has no name of its own to qualify columns by
        named = following is not None and (following.kind is Kind.QUOTED_NAME or edits.is_word(place + 1, "as"))
        alias = following is not None and following.kind is Kind.WORD and following.value not in _ENDS_OF_TABLE
        edits.replace(first, place + 1, call if named or alias else f"{call} AS {quoted(view_set)}")

    def _operator(self, place: int) -> None:
        """OPERATOR(pg_catalog.~)"""
        edits = self._edits
        end = place + 4
        while (token := edits.at(end)) is not None and token.kind is Kind.SYMBOL and token.value != ")":
            end += 1
        if edits.is_symbol(place + 3, ".") and edits.is_symbol(end, ")"):
            operator = "".join(edits.tokens[each].value for each in range(place + 4, end))
            edits.replace(place, end + 1, operator)
            edits.place = end

    def _is_prefix(self, place: int) -> bool:
        """Whether this is the name of the database or of the catalogue's schema, which mean nothing here."""
        name = self._edits.tokens[place].value
        return name == _CATALOG or (name == DATABASE and self._edits.is_symbol(place + 3, "."))

    def _fetch(self, place: int) -> None:
        """FETCH FIRST 3 ROWS ONLY"""
        edits = self._edits
        count = edits.at(place + 2)
        is_counted = count is not None and count.kind in (Kind.NUMBER, Kind.PARAMETER)
        rows = place + 3 if is_counted else place + 2
        if edits.is_word(rows, "row", "rows") and edits.is_word(rows + 1, "only"):
            edits.replace(place, rows + 2, f"LIMIT {count.value if count is not None and is_counted else '1'}")
            edits.place = rows + 1

    def _similar(self, place: int) -> None:
        """SIMILAR TO, which is no LIKE and no regular expression."""
        edits = self._edits
        pattern = text_of(edits.at(place + 2))
        if pattern is None or edits.is_word(place + 3, "escape"):
            raise not_offered("SIMILAR TO is offered with a text behind it", "say ~ and a regular expression")
        is_negated = edits.is_word(place - 1, "not")
        operator = "!~" if is_negated else "~"
        edits.replace(place - int(is_negated), place + 3, f"{operator} {literal(similar_pattern(pattern))}")
        edits.place = place + 2

    def _exists(self, place: int) -> None:
        """SELECT EXISTS (SELECT …), which the engine takes as a condition only."""
        edits = self._edits
        if not (edits.is_symbol(place + 1, "(") and edits.is_word(place + 2, "select", "with", "values", "table")):
            return
        close = edits.closing(place + 1)
        if close is not None:
            edits.replace(place, place + 1, "(SELECT count(*) > 0 FROM (SELECT 1 FROM")
            edits.insert_behind(close, " LIMIT 1))")

    def _list(self, place: int) -> None:
        """= ANY ('{1,2}'::integer[]), as postgres_fdw writes IN."""
        edits = self._edits
        text = text_of(edits.at(place + 2))
        if text is None:
            return
        end = place + 3
        kind: list[str] = []
        if edits.is_cast(end):
            kind, end = self._type(end + 2)
            if edits.is_symbol(end, "[") and edits.is_symbol(end + 1, "]"):
                end += 2
        if not edits.is_symbol(end, ")"):
            return
        is_all = edits.is_word(place, "all")
        negated = edits.is_symbol(place - 1, ">") and edits.is_symbol(place - 2, "<")
        equal = edits.is_symbol(place - 1, "=") and not edits.is_symbol(place - 2, "<", ">", "!")
        if not ((equal and not is_all) or (negated and is_all)):
            return
        items = array_items(text)
        if not items:
            return
        values = ", ".join(_value(item, kind) for item in items)
        start = place - 2 if negated else place - 1
        edits.replace(start, end + 1, f"{'NOT ' if negated else ''}IN ({values})")
        edits.place = end

    def _cast(self, place: int) -> None:
        """A type after `::`, behind its schema or not."""
        edits = self._edits
        if edits.is_word(place, _CATALOG) and edits.is_symbol(place + 1, "."):
            edits.replace(place, place + 2, "")
            place += 2
        token = edits.at(place)
        if token is not None and token.value in _TYPES:
            edits.replace(place, place + 1, _TYPES[token.value])
        elif edits.is_word(place, "date") and self._moves(place + 1):
            edits.replace(place, place + 1, "date::timestamp")
        edits.place = place

    def _moves(self, place: int) -> bool:
        """Whether an interval is added or taken away here, which makes a time of a day."""
        edits = self._edits
        is_text = text_of(edits.at(place + 1)) is not None and edits.is_cast(place + 2)
        is_interval = edits.is_word(place + 1, "interval") or (is_text and edits.is_word(place + 4, "interval"))
        return edits.is_symbol(place, "+", "-") and is_interval

    def _cast_call(self, place: int) -> None:
        """CAST(… AS …) of an array in a text, or of JSON."""
        edits = self._edits
        close = edits.closing(place + 1)
        if close is None:
            return
        named = word_before(edits, "as", close)
        if named is None:
            return
        kind, end = self._type(named + 1)
        text = text_of(edits.at(place + 2))
        if text is not None and named == place + 3 and edits.is_symbol(end, "["):
            edits.replace(place, close + 1, _array(text, kind))
            edits.place = close
        elif edits.tokens[named - 1].value in self._known.json and kind and kind[0] in ("text", "varchar", "json"):
            edits.replace(place, close + 1, f"jsonb_format_json({edits.source(place + 2, named)})")
            edits.place = close
        elif end == close and len(kind) == 1 and kind[0] in _TYPES:
            edits.replace(close - 1, close, _TYPES[kind[0]])


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


def _array(text: str, kind: list[str]) -> str:
    """'{1,2}'::int[]"""
    items = array_items(text)
    if not items:
        return f"ARRAY[]::{' '.join(_TYPES.get(word, word) for word in kind)}[]"
    return f"ARRAY[{', '.join(_value(item, kind) for item in items)}]"


def _value(item: str | None, kind: list[str]) -> str:
    if item is None:
        return "NULL"
    name = " ".join(kind)
    if not kind or name in ("text", "character varying", "varchar", *_TYPES):
        return literal(item)
    return f"CAST({literal(item)} AS {name})"
