"""Bounds of columns that a scan's filters imply. Must never be too narrow: what isn't understood only widens them, as
the engine filters again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pyarrow as pa
from datafusion import Expr

MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}
_DAY = 86_400_000_000_000
_TRUNCATED = {
    "second": 1_000_000_000,
    "minute": 60_000_000_000,
    "hour": 3_600_000_000_000,
    "day": _DAY,
    "week": 7 * _DAY,
    "month": 31 * _DAY,
    "quarter": 92 * _DAY,
    "year": 366 * _DAY,
}
"""What `date_trunc` takes, with the longest span of times (ns) that it makes one; shorter units it rounds up before
the epoch."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Event times in ns since the epoch, both ends inclusive; None = open. `begin > end` holds nothing.

    Of rows that have a begin and an end of their own, `begin` bounds the one and `end` the other: `begin > end` is then
    met by all rows that reach over both. `for_spans` makes of it a range that each of these has a part in.
    """

    begin: int | None = None
    end: int | None = None

    def intersect(self, other: TimeRange) -> TimeRange:
        return TimeRange(_extreme(max, self.begin, other.begin), _extreme(min, self.end, other.end))

    def hull(self, other: TimeRange) -> TimeRange:
        """The least range that holds both."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return TimeRange(
            None if self.begin is None or other.begin is None else min(self.begin, other.begin),
            None if self.end is None or other.end is None else max(self.end, other.end),
        )

    @property
    def for_spans(self) -> TimeRange:
        """The range where rows that meet this one reach from a begin to an end of their own."""
        return TimeRange(self.end, self.begin) if self.is_empty else self

    @property
    def is_empty(self) -> bool:
        return self.begin is not None and self.end is not None and self.begin > self.end

    @property
    def is_open(self) -> bool:
        return self.begin is None and self.end is None

    def overlaps(self, lowest: int, highest: int) -> bool:
        """Whether something of the closed range [lowest, highest] may lie inside."""
        if self.is_empty:
            return False
        return (self.end is None or lowest <= self.end) and (self.begin is None or highest >= self.begin)


EVERYTHING = TimeRange()


def _extreme(choose: Any, left: int | None, right: int | None) -> int | None:
    if left is None:
        return right
    return left if right is None else int(choose(left, right))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What rows of a scan must fulfil: a time range, and per column the only values it may have (None = any)."""

    time: TimeRange = EVERYTHING
    values: tuple[tuple[str, frozenset[str]], ...] = ()

    def allowed(self, column: str) -> frozenset[str] | None:
        return dict(self.values).get(column)

    def only_id(self, column: str) -> str | None:
        """The one id that rows may have in a column, None when there may be several.

        Where no id can match, the nil one: databases refuse texts that are no ids, and the engine filters again.
        """
        allowed = self.allowed(column)
        if allowed is None or len(allowed) > 1:
            return None
        try:
            return str(UUID(next(iter(allowed), "")))
        except ValueError:
            return str(UUID(int=0))

    def both(self, other: Bounds) -> Bounds:
        mine, theirs = dict(self.values), dict(other.values)
        merged = {
            column: mine[column] & theirs[column] if column in mine and column in theirs else (mine | theirs)[column]
            for column in mine | theirs
        }
        return Bounds(self.time.intersect(other.time), tuple(sorted(merged.items())))

    def of_rows_with(self, time_columns: Sequence[str]) -> Bounds:
        """The bounds where these are the columns that hold the times of a row: one moment, or a begin and an end."""
        return self if len(time_columns) < 2 else replace(self, time=self.time.for_spans)

    def either(self, other: Bounds) -> Bounds:
        mine, theirs = dict(self.values), dict(other.values)
        merged = {column: mine[column] | theirs[column] for column in mine.keys() & theirs.keys()}
        return Bounds(self.time.hull(other.time), tuple(sorted(merged.items())))


ANYTHING = Bounds()


def bounds_of(filters: Iterable[Expr], time_columns: Sequence[str], value_columns: Sequence[str]) -> Bounds:
    """Bounds implied by the conjunction of `filters`.

    A bound on any of `time_columns` counts: for a row of [begin, end] with begin <= end, `begin >= t` implies
    `end >= t`, so it bounds the partitions to be read from below; the same holds for upper bounds.
    """
    bounds = ANYTHING
    for expression in filters:
        bounds = bounds.both(_of(expression, time_columns, value_columns)).of_rows_with(time_columns)
    return bounds


def _of(expression: Expr, times: Sequence[str], values: Sequence[str]) -> Bounds:
    variant = expression.variant_name()
    if variant == "InList":
        return _of_list(expression, values)
    if variant != "BinaryExpr":
        return ANYTHING
    operator = expression.rex_call_operator()
    left, right = expression.rex_call_operands()
    if operator == "AND":
        return _of(left, times, values).both(_of(right, times, values)).of_rows_with(times)
    if operator == "OR":
        return _of(left, times, values).either(_of(right, times, values))
    if operator not in _MIRRORED:
        return ANYTHING
    if left.variant_name() == "Literal":
        left, right, operator = right, left, _MIRRORED[operator]
    if right.variant_name() != "Literal":
        return ANYTHING
    if left.variant_name() == "ScalarFunction":
        return _of_floor(left, operator, right.python_value(), times)
    if left.variant_name() != "Column":
        return ANYTHING
    return _of_comparison(_column_name(left), operator, right.python_value(), times, values)


def _of_floor(call: Expr, operator: str, literal: Any, times: Sequence[str]) -> Bounds:
    """Of a comparison with the bin that a time lies in, as views have it whose rows are counts: a bin begins at the
    latest at its times, and earlier by less than its width."""
    name, arguments = call.rex_call_operator(), call.rex_call_operands()
    if name not in ("date_bin", "date_trunc") or [each.variant_name() for each in arguments[:2]] != [
        "Literal",
        "Column",
    ]:
        return ANYTHING
    argument = arguments[0].python_value()
    width = _stride(argument) if name == "date_bin" else _TRUNCATED.get((_text(argument) or "").lower())
    if width is None:
        return ANYTHING
    floor = _of_comparison(_column_name(arguments[1]), operator, literal, times, ()).time
    end = None if floor.end is None or floor.end > MAX_TIME - width else floor.end + width - 1
    return Bounds(TimeRange(floor.begin, end))


def _stride(argument: Any) -> int | None:
    """The longest bin (ns) of a `date_bin` with this stride; None for what is no interval."""
    if not isinstance(argument, pa.MonthDayNanoIntervalScalar) or not argument.is_valid:
        return None
    months, days, nanoseconds = argument.as_py()
    width = (31 * months + days) * _DAY + nanoseconds
    return width if width > 0 else None


def _of_comparison(column: str, operator: str, literal: Any, times: Sequence[str], values: Sequence[str]) -> Bounds:
    if column in times and isinstance(literal, pa.TimestampScalar) and literal.is_valid:
        try:
            moment = literal.cast(pa.timestamp("ns", literal.type.tz)).value
        except pa.ArrowInvalid:
            return ANYTHING
        match operator:
            case "=":
                return Bounds(TimeRange(moment, moment))
            case ">":
                return Bounds(TimeRange(min(moment + 1, MAX_TIME), None))
            case ">=":
                return Bounds(TimeRange(moment, None))
            case "<":
                return Bounds(TimeRange(None, max(moment - 1, MIN_TIME)))
            case "<=":
                return Bounds(TimeRange(None, moment))
    if column in values and operator == "=":
        text = _text(literal)
        if text is not None:
            return Bounds(values=((column, frozenset({text})),))
    return ANYTHING


def _of_list(expression: Expr, values: Sequence[str]) -> Bounds:
    operands = expression.rex_call_operands()
    if expression.to_variant().negated() or operands[0].variant_name() != "Column":
        return ANYTHING
    column = _column_name(operands[0])
    if column not in values or any(operand.variant_name() != "Literal" for operand in operands[1:]):
        return ANYTHING
    texts = [_text(operand.python_value()) for operand in operands[1:]]
    if any(text is None for text in texts):
        return ANYTHING
    return Bounds(values=((column, frozenset(text for text in texts if text is not None)),))


def _text(literal: Any) -> str | None:
    if isinstance(literal, pa.DictionaryScalar):
        literal = literal.value
    value = literal.as_py() if isinstance(literal, pa.StringScalar) else literal
    return value if isinstance(value, str) else None


def _column_name(column: Expr) -> str:
    return str(column.to_variant().name())
