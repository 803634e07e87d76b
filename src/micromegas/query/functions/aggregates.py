"""Aggregate functions of ours, which exist in SQL text only: a call becomes a scalar kernel over native `array_agg`.

A Python accumulator is one object per group called once per batch: a thousand times slower over many groups. A plan
can't be changed after the fact, as one over tables in memory can't be serialized. So calls are expanded in the
statement before it is planned; only its own text is moved about in it, and no value from elsewhere ever gets in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from micromegas.query.errors import QueryError
from micromegas.query.functions.sql_text import Kind, Token, tokens

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_CONSTANT_SYMBOLS = frozenset("+-*/()")
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class _Value:
    """An argument: its SQL, and whether it is the same for all rows because it names nothing."""

    sql: str
    is_constant: bool


@dataclass(frozen=True, slots=True)
class AggregateFunction:
    """An aggregate function; a call may have FILTER and OVER clauses, but no DISTINCT and no ORDER BY within."""

    name: str
    arguments: tuple[str, ...]
    description: str
    expand: Callable[[Sequence[_Value], str], str]
    """The SQL of a call from its arguments and the text of its FILTER and OVER clauses."""
    example: str
    """A statement for docs/functions.md, see tools/functions_page.py."""

    @property
    def signature(self) -> str:
        """`name(argument, …)` as users write it."""
        return f"{self.name}({', '.join(self.arguments)})"


def _make_histogram(arguments: Sequence[_Value], clauses: str) -> str:
    *bounds, values = arguments
    types = ("DOUBLE", "DOUBLE", "BIGINT")
    casts = [f"CAST({bound.sql} AS {sql_type})" for bound, sql_type in zip(bounds, types, strict=True)]
    collected = f"array_agg(CAST({values.sql} AS DOUBLE)){clauses}"
    if all(bound.is_constant for bound in bounds):
        return f"histogram_of_list({', '.join(casts)}, {collected})"
    extremes = ", ".join(f"min({cast}){clauses}, max({cast}){clauses}" for cast in casts)
    is_null = " OR ".join(f"({bound.sql}) IS NULL" for bound in bounds)
    return f"histogram_of_group({extremes}, bool_or({is_null}){clauses}, {collected})"


def _sum_histograms(arguments: Sequence[_Value], clauses: str) -> str:
    return f"sum_of_histograms(array_agg({arguments[0].sql}){clauses})"


AGGREGATES = (
    AggregateFunction(
        "make_histogram",
        ("start", "end", "nb_bins", "value"),
        "The histogram of the values of a group, NULLs left out. start, end and nb_bins are constant over the group, "
        "otherwise it is an error, as are NULL, non-finite or reversed bounds and fewer than one bin. A group without "
        "rows gives an empty histogram if the bounds are literals or parameters, otherwise NULL.",
        _make_histogram,
        "SELECT make_histogram(0.0, 50.0, 5, value) AS histogram FROM measures WHERE name = 'frame_time'",
    ),
    AggregateFunction(
        "sum_histograms",
        ("histogram",),
        "The sum of the histograms of a group, NULLs left out; NULL when there is none. Histograms of different start, "
        "end or number of bins are an error.",
        _sum_histograms,
        "WITH h AS (SELECT date_bin(INTERVAL '200 milliseconds', time) AS t, make_histogram(0.0, 50.0, 5, value) AS h "
        "FROM measures WHERE name = 'frame_time' GROUP BY t) "
        "SELECT count(*) AS histograms, count_from_histogram(sum_histograms(h)) AS n FROM h",
    ),
)

_BY_NAME = {function.name: function for function in AGGREGATES}


def expand_aggregates(sql: str) -> str:
    """The statement with the calls of our aggregate functions replaced by what DataFusion can run.

    A statement without such calls is returned as it is. Raises `QueryError` for a wrong number of arguments, for
    DISTINCT and for calls nested deeper than any use of them; what can't be parsed stays, so that the planner says
    what is wrong.
    """
    lowered = sql.lower()
    if not any(name in lowered for name in _BY_NAME):
        return sql
    return _Statement(sql).expanded()


class _Statement:
    """A statement and its tokens, which are named by their index."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._tokens = tokens(sql)
        self._closing = _closing_brackets(self._tokens)

    def expanded(self) -> str:
        """The whole text with calls expanded."""
        if not self._tokens:
            return self._sql
        before, after = self._sql[: self._tokens[0].start], self._sql[self._tokens[-1].end :]
        return before + self._expand(0, len(self._tokens), 0) + after

    def _expand(self, start: int, end: int, depth: int) -> str:
        """The text of the tokens [start, end), of which there is at least one, with calls expanded."""
        if depth > _MAX_DEPTH:
            raise QueryError("invalid", f"aggregate functions nested deeper than {_MAX_DEPTH} calls")
        parts = []
        copied = self._tokens[start].start
        index = start
        while index < end:
            function = self._function_at(index)
            if function is None:
                index += 1
                continue
            closing = self._closing[index + 1]
            clauses_end = self._clauses_end(closing + 1)
            clauses = f" {self._expand(closing + 1, clauses_end, depth + 1)}" if clauses_end > closing + 1 else ""
            parts.append(self._sql[copied : self._tokens[index].start])
            parts.append(function.expand(self._arguments(function, index + 2, closing, depth + 1), clauses))
            copied = self._tokens[clauses_end - 1].end
            index = clauses_end
        parts.append(self._sql[copied : self._tokens[end - 1].end])
        return "".join(parts)

    def _function_at(self, index: int) -> AggregateFunction | None:
        """The function that is called by the token, with its closing bracket in the text."""
        token = self._tokens[index]
        is_name = token.kind in (Kind.WORD, Kind.QUOTED_NAME)
        if not is_name or not self._is_symbol(index + 1, "(") or index + 1 not in self._closing:
            return None
        # a member or a function of another schema is none of ours
        return None if self._is_symbol(index - 1, ".") else _BY_NAME.get(token.value)

    def _clauses_end(self, index: int) -> int:
        """Index after the FILTER and OVER clauses that start at `index`."""
        if self._is_word(index, "filter") and index + 1 in self._closing:
            index = self._closing[index + 1] + 1
        if self._is_word(index, "over") and index + 1 < len(self._tokens):
            index = self._closing.get(index + 1, index + 1) + 1
        return index

    def _arguments(self, function: AggregateFunction, start: int, end: int, depth: int) -> list[_Value]:
        if self._is_word(start, "distinct"):
            raise QueryError("invalid", f"{function.name} takes no DISTINCT")
        commas = []
        index = start
        while index < end:
            if self._is_symbol(index, ","):
                commas.append(index)
            index = self._closing.get(index, index) + 1
        ranges = (
            list(zip([start, *(comma + 1 for comma in commas)], [*commas, end], strict=True)) if start < end else []
        )
        if len(ranges) != len(function.arguments):
            expected = len(function.arguments)
            raise QueryError("invalid", f"{function.signature}: {len(ranges)} arguments given, {expected} expected")
        if any(first == last for first, last in ranges):
            raise QueryError("invalid", f"{function.signature}: an argument is missing")
        return [
            _Value(self._expand(first, last, depth), all(map(_is_constant, self._tokens[first:last])))
            for first, last in ranges
        ]

    def _is_symbol(self, index: int, value: str) -> bool:
        return self._is(index, Kind.SYMBOL, value)

    def _is_word(self, index: int, value: str) -> bool:
        return self._is(index, Kind.WORD, value)

    def _is(self, index: int, kind: Kind, value: str) -> bool:
        if not 0 <= index < len(self._tokens):
            return False
        token = self._tokens[index]
        return token.kind is kind and token.value == value


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
