"""A statement whose calls of some functions are replaced by other SQL, before it is planned.

Only the statement's own text is moved about in it; what can't be parsed stays, so that the planner says what is wrong.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from micromegas.query.errors import QueryError
from micromegas.query.functions.sql_text import Kind, Token, tokens

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_CONSTANT_SYMBOLS = frozenset("+-*/()")
_MAX_DEPTH = 16
# An argument may be named more than once in what becomes of its call, which doubles with each call within another.
_MAX_EXPANDED = 4 * 1024 * 1024
_ENDS_OF_SELECT = ["where", "group", "having", "order", "limit", "offset", "fetch", "window", "qualify", "for"]
_ENDS_OF_SELECT_LIST = frozenset(["from", "into", "union", "intersect", "except", *_ENDS_OF_SELECT])
_CLAUSES = _ENDS_OF_SELECT_LIST | frozenset(
    ["select", "with", "by", "values", "on", "using", "join", "partition", "set", "distinct"]
)
_CLAUSES_OF_TABLES = frozenset(["from", "join", "on", "using"])
_NAMES = (Kind.WORD, Kind.QUOTED_NAME)


@dataclass(frozen=True, slots=True)
class Value:
    """An argument: its SQL, whether it is the same for all rows because it names nothing, and whether it is a subquery
    in parentheses."""

    sql: str
    is_constant: bool
    is_subquery: bool


@dataclass(frozen=True, slots=True)
class Replacement:
    """What becomes of a call: the SQL from its arguments and from the text of its FILTER and OVER clauses."""

    signature: str
    """For errors."""
    arguments: int
    """How many there must be."""
    sql: Callable[[Sequence[Value], str], str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a token stands: after which word that starts a clause, within the same brackets, and in which SELECT."""

    clause: str | None
    select: int | None


class Statement:
    """The tokens of a statement, which are named by their index, and where brackets close."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = tokens(sql)
        self._closing = _closing_brackets(self.tokens)
        self._opening = {closing: opening for opening, closing in self._closing.items()}
        self._places: list[_Place] = []
        self._grouped: set[int] = set()
        self._find_places()

    def calls(self, names: frozenset[str]) -> Iterator[tuple[int, str]]:
        """Index and name of each call of one of the functions, with its closing bracket in the text."""
        for index, token in enumerate(self.tokens):
            # a member or a function of another schema is none of ours
            if (
                token.kind in _NAMES
                and token.value in names
                and self._is_symbol(index + 1, "(")
                and index + 1 in self._closing
                and not self._is_symbol(index - 1, ".")
            ):
                yield index, token.value

    def is_table(self, index: int) -> bool:
        """Whether the call at `index` stands where FROM has its tables."""
        while True:
            before = index - 1
            if any(self._is_word(before, word) for word in ("from", "join", "lateral")):
                return True
            if self._is_symbol(before, ","):
                return self._places[before].clause in _CLAUSES_OF_TABLES
            if not self._is_symbol(before, "("):
                return False
            index = before

    def is_over_one_group(self, index: int) -> bool:
        """Whether the call at `index`, if it is an aggregate, is one of a SELECT without GROUP BY and no window."""
        following = self.closing(index) + 1
        if self._is_word(following, "filter"):
            following = self._closing.get(following + 1, following) + 1
        return self._places[index].select not in self._grouped and not self._is_word(following, "over")

    def replaced(self, replacements: dict[int, Replacement]) -> str:
        """The text with each of the calls replaced; a column of a SELECT that thereby loses its name gets it back.

        Raises `QueryError` for a wrong number of arguments, for DISTINCT and for calls nested deeper than any use.
        """
        if not replacements:
            return self.sql
        before, after = self.sql[: self.tokens[0].start], self.sql[self.tokens[-1].end :]
        aliases = self._aliases(replacements)
        return before + _Rewriting(self, replacements, aliases).text(0, len(self.tokens), 0) + after

    def closing(self, index: int) -> int:
        """Index of the bracket that closes the call at `index`."""
        return self._closing[index + 1]

    def clauses_end(self, index: int) -> int:
        """Index after the FILTER and OVER clauses that start at `index`."""
        if self._is_word(index, "filter") and index + 1 in self._closing:
            index = self._closing[index + 1] + 1
        if self._is_word(index, "over") and index + 1 < len(self.tokens):
            index = self._closing.get(index + 1, index + 1) + 1
        return index

    def argument_count(self, index: int) -> int:
        """How many arguments the call at `index` has."""
        start, end = index + 2, self.closing(index)
        return len(self._separated(start, end)) if start < end else 0

    def argument_texts(self, index: int) -> list[str]:
        """The arguments of the call at `index` as they are written; none where one is missing."""
        start, end = index + 2, self.closing(index)
        ranges = self._separated(start, end) if start < end else []
        if any(first == last for first, last in ranges):
            return []
        return [self.sql[self.tokens[first].start : self.tokens[last - 1].end] for first, last in ranges]

    def arguments(self, replacement: Replacement, index: int) -> list[tuple[int, int]]:
        """The ranges of tokens between the brackets and commas of the call at `index`."""
        start, end = index + 2, self.closing(index)
        if self._is_word(start, "distinct"):
            raise QueryError("invalid", f"{replacement.signature.split('(', maxsplit=1)[0]} takes no DISTINCT")
        ranges = self._separated(start, end) if start < end else []
        if len(ranges) != replacement.arguments:
            counts = f"{len(ranges)} arguments given, {replacement.arguments} expected"
            raise QueryError("invalid", f"{replacement.signature}: {counts}")
        if any(first == last for first, last in ranges):
            raise QueryError("invalid", f"{replacement.signature}: an argument is missing")
        return ranges

    def is_constant(self, first: int, last: int) -> bool:
        return all(map(_is_constant, self.tokens[first:last]))

    def is_subquery(self, first: int, last: int) -> bool:
        is_bracket = self._is_symbol(first, "(") and self._closing.get(first) == last - 1
        return is_bracket and any(self._is_word(first + 1, word) for word in ("select", "with"))

    def _aliases(self, replacements: dict[int, Replacement]) -> dict[int, str]:
        """By the last token of a column of a SELECT that has no alias, and has a call to be replaced: its text."""
        aliases: dict[int, str] = {}
        calls = sorted(replacements)
        for select, token in enumerate(self.tokens):
            if token.kind is not Kind.WORD or token.value != "select" or self._is_symbol(select - 1, "."):
                continue
            for first, last in self._separated(*self._select_list(select)):
                # an item that ends with a name may have that for an alias
                is_named = first == last or self.tokens[last - 1].kind in (*_NAMES, Kind.TEXT)
                is_wildcard = any(self._is_symbol(place, "*") for place in (first, first + 2))
                first_call = bisect_left(calls, first)
                has_call = first_call < len(calls) and calls[first_call] < last
                if not is_named and not is_wildcard and has_call:
                    aliases[last - 1] = self._shown(first, last)
        return aliases

    def _find_places(self) -> None:
        frames = [_Place(None, None)]
        own_selects: list[int | None] = [None]
        for index, token in enumerate(self.tokens):
            if index in self._opening and len(frames) > 1:
                frames.pop()
                own_selects.pop()
            place = frames[-1]
            self._places.append(place)
            if token.kind is Kind.WORD and token.value in _CLAUSES and not self._is_symbol(index - 1, "."):
                if token.value == "select":
                    own_selects[-1] = index
                elif token.value == "group" and own_selects[-1] is not None:
                    self._grouped.add(own_selects[-1])
                frames[-1] = _Place(token.value, own_selects[-1] if own_selects[-1] is not None else place.select)
            if index in self._closing:
                frames.append(_Place(None, place.select))
                own_selects.append(None)

    def _select_list(self, select: int) -> tuple[int, int]:
        start = select + 1
        if any(self._is_word(start, word) for word in ("distinct", "all")):
            start += 1
            if self._is_word(start, "on") and start + 1 in self._closing:
                start = self._closing[start + 1] + 1
        end = start
        while end < len(self.tokens) and end not in self._opening:
            token = self.tokens[end]
            # `x IS DISTINCT FROM y` is an expression
            is_operator = token.value == "from" and self._is_word(end - 1, "distinct")
            if token.kind is Kind.WORD and token.value in _ENDS_OF_SELECT_LIST and not is_operator:
                break
            if self._is_symbol(end, ";"):
                break
            end = self._closing.get(end, end) + 1
        return start, end

    def _separated(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges between the commas that stand in no inner brackets."""
        commas = []
        index = start
        while index < end:
            if self._is_symbol(index, ","):
                commas.append(index)
            index = self._closing.get(index, index) + 1
        return list(zip([start, *(comma + 1 for comma in commas)], [*commas, end], strict=True))

    def _shown(self, first: int, last: int) -> str:
        """The text of some tokens, with one space where there is any, or a comment."""
        shown = ""
        for previous, token in zip([None, *self.tokens[first : last - 1]], self.tokens[first:last], strict=True):
            gap = " " if previous is not None and previous.end < token.start else ""
            shown += gap + self.sql[token.start : token.end]
        return shown

    def _is_symbol(self, index: int, value: str) -> bool:
        return self._is(index, Kind.SYMBOL, value)

    def _is_word(self, index: int, value: str) -> bool:
        return self._is(index, Kind.WORD, value)

    def _is(self, index: int, kind: Kind, value: str) -> bool:
        if not 0 <= index < len(self.tokens):
            return False
        token = self.tokens[index]
        return token.kind is kind and token.value == value


@dataclass(frozen=True, slots=True)
class _Rewriting:
    statement: Statement
    replacements: dict[int, Replacement]
    aliases: dict[int, str]

    def text(self, start: int, end: int, depth: int) -> str:
        """The text of the tokens [start, end), of which there is at least one, with calls replaced."""
        if depth > _MAX_DEPTH:
            raise QueryError("invalid", f"functions nested deeper than {_MAX_DEPTH} calls")
        statement, sql = self.statement, self.statement.sql
        parts = []
        copied = statement.tokens[start].start
        index = start
        while index < end:
            replacement = self.replacements.get(index)
            following = index + 1
            if replacement is not None:
                closing = statement.closing(index)
                following = statement.clauses_end(closing + 1)
                # a name for what ends with the clauses comes after all of it
                alias = self.aliases.pop(following - 1, None)
                clauses = f" {self.text(closing + 1, following, depth + 1)}" if following > closing + 1 else ""
                if alias is not None:
                    self.aliases[following - 1] = alias
                values = [
                    Value(
                        self.text(first, last, depth + 1),
                        statement.is_constant(first, last),
                        statement.is_subquery(first, last),
                    )
                    for first, last in statement.arguments(replacement, index)
                ]
                parts.append(sql[copied : statement.tokens[index].start])
                parts.append(replacement.sql(values, clauses))
                copied = statement.tokens[following - 1].end
            if (alias := self.aliases.get(following - 1)) is not None:
                parts.append(sql[copied : statement.tokens[following - 1].end])
                quoted = alias.replace('"', '""')
                parts.append(f' AS "{quoted}"')
                copied = statement.tokens[following - 1].end
            index = following
        parts.append(sql[copied : statement.tokens[end - 1].end])
        text = "".join(parts)
        if len(text) > _MAX_EXPANDED:
            raise QueryError("invalid", f"statement of more than {_MAX_EXPANDED} characters, its functions expanded")
        return text


def _closing_brackets(found: Sequence[Token]) -> dict[int, int]:
    """Index of the closing bracket by that of the opening one; those that don't pair up are left out."""
    closing: dict[int, int] = {}
    open_brackets: list[int] = []
    for index, token in enumerate(found):
        if token.kind is not Kind.SYMBOL:
            continue
        if token.value in _CLOSING:
            open_brackets.append(index)
        elif token.value in _CLOSING.values():
            if not open_brackets or _CLOSING[found[open_brackets[-1]].value] != token.value:
                break
            closing[open_brackets.pop()] = index
    return closing


def _is_constant(token: Token) -> bool:
    if token.kind is Kind.SYMBOL:
        return token.value in _CONSTANT_SYMBOLS
    return token.kind in (Kind.NUMBER, Kind.PARAMETER) or (token.kind is Kind.WORD and token.value == "null")
