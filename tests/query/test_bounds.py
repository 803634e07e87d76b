"""Bounds that are read off filters hold for every row that the filter lets pass."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas.query.bounds import EVERYTHING, MAX_TIME, MIN_TIME, Bounds, TimeRange
from micromegas.query.scans import FilterColumns, scan_needs

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
TYPE = pa.timestamp("ns", "+00:00")
STEPS = {
    "date_bin(INTERVAL '1 second', time)": SECOND,
    "date_bin(INTERVAL '7 minutes', time)": 420 * SECOND,
    "date_bin(INTERVAL '10 minutes', time, arrow_cast(90000000000, 'Timestamp(ns, \"+00:00\")'))": 600 * SECOND,
    "date_bin(INTERVAL '2 days', time)": 2 * DAY,
    "date_bin(INTERVAL '3 months', time)": 93 * DAY,
    "date_trunc('second', time)": SECOND,
    "date_trunc('MINUTE', time)": 60 * SECOND,
    "date_trunc('hour', time)": 3600 * SECOND,
    "date_trunc('day', time)": DAY,
    "date_trunc('week', time)": 7 * DAY,
    "date_trunc('month', time)": 31 * DAY,
    "date_trunc('quarter', time)": 92 * DAY,
    "date_trunc('year', time)": 366 * DAY,
}
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    "=": lambda value, limit: value == limit,
    ">=": lambda value, limit: value >= limit,
    ">": lambda value, limit: value > limit,
}
# From 1900 to 2100, before the epoch too.
TIMES = st.integers(-2_208_988_800 * SECOND, 4_102_444_800 * SECOND)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> SessionContext:
    opened = SessionContext()
    file = tmp_path_factory.mktemp("bounds") / "t.parquet"
    pq.write_table(pa.table({"time": pa.array([], TYPE)}), file)
    opened.register_parquet("t", str(file))
    return opened


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> SessionContext:
    opened = SessionContext()
    file = tmp_path_factory.mktemp("spans") / "t.parquet"
    pq.write_table(pa.table({name: pa.array([], TYPE) for name in ("begin", "end")}), file)
    opened.register_parquet("t", str(file))
    return opened


def bounds(context: SessionContext, condition: str) -> TimeRange:
    plan = context.sql(f"SELECT * FROM t WHERE {condition}").optimized_logical_plan()
    return scan_needs(plan, {"t": FilterColumns(["time"])})["t"].bounds.time


def floored(context: SessionContext, step: str, time: int) -> int:
    shown = context.sql(
        f"SELECT CAST({step} AS BIGINT) FROM (SELECT arrow_cast({time}, 'Timestamp(ns, \"+00:00\")') AS time)"
    )
    return int(shown.to_pydict().popitem()[1][0])


@settings(max_examples=150)
@given(step=st.sampled_from(sorted(STEPS)), time=TIMES, off=st.integers(-3, 3), operator=st.sampled_from([*OPERATORS]))
def test_a_bin_that_passes_has_all_its_times_within_the_bounds(
    context: SessionContext, step: str, time: int, off: int, operator: str
) -> None:
    begin = floored(context, step, time)
    literal = begin + off
    found = bounds(context, f"{step} {operator} arrow_cast({literal}, 'Timestamp(ns, \"+00:00\")')")
    assert found != EVERYTHING
    if OPERATORS[operator](begin, literal):
        assert found.overlaps(time, time)
    # And they are worth something: what lies two widths on the wrong side is left out.
    width = STEPS[step]
    if operator in (">", ">=", "="):
        assert not found.overlaps(literal - 2 * width - 9, literal - 2 * width)
    if operator in ("<", "<=", "="):
        assert not found.overlaps(literal + 2 * width, literal + 2 * width + 9)


def test_bounds_at_the_ends_of_time_are_open(context: SessionContext) -> None:
    limit = f"arrow_cast({MAX_TIME - 5}, 'Timestamp(ns, \"+00:00\")')"
    assert bounds(context, f"date_bin(INTERVAL '1 minute', time) <= {limit}") == EVERYTHING
    lowest = f"arrow_cast({MIN_TIME}, 'Timestamp(ns, \"+00:00\")')"
    assert bounds(context, f"date_bin(INTERVAL '1 minute', time) < {lowest}").end is not None


@pytest.mark.parametrize(
    "condition",
    [
        "date_bin(INTERVAL '1 minute', time + INTERVAL '1 hour') > TIMESTAMP '2026-01-01T00:00:00Z'",
        "date_part('hour', time) > 3",
        "date_trunc('millisecond', time) > TIMESTAMP '2026-01-01T00:00:00Z'",
        "date_trunc('hour', time) <> TIMESTAMP '2026-01-01T00:00:00Z'",
    ],
)
def test_other_calls_bound_nothing(context: SessionContext, condition: str) -> None:
    assert bounds(context, condition) == EVERYTHING


def test_both_sides_of_a_comparison_may_hold_the_bin(context: SessionContext) -> None:
    at = int(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()) * SECOND
    literal = "TIMESTAMP '2026-01-01T00:00:00Z'"
    assert bounds(context, f"{literal} <= date_trunc('hour', time)") == TimeRange(at, None)
    assert bounds(context, f"date_trunc('hour', time) = {literal}") == TimeRange(at, at + 3600 * SECOND - 1)


SPAN_COLUMNS = ("begin", "end")
# A condition on a span, and which spans meet it.
Condition = tuple[str, Callable[[int, int], bool]]


def comparison(column: str, operator: str, limit: int) -> Condition:
    meets = OPERATORS[operator]
    place = SPAN_COLUMNS.index(column)
    moment = f"arrow_cast({limit}, 'Timestamp(ns, \"+00:00\")')"
    return f'"{column}" {operator} {moment}', lambda begin, end: meets((begin, end)[place], limit)


def joined(word: str, left: Condition, right: Condition) -> Condition:
    both = f"({left[0]} {word} {right[0]})"
    if word == "AND":
        return both, lambda begin, end: left[1](begin, end) and right[1](begin, end)
    return both, lambda begin, end: left[1](begin, end) or right[1](begin, end)


COMPARISONS = st.builds(comparison, st.sampled_from(SPAN_COLUMNS), st.sampled_from(list(OPERATORS)), st.integers(0, 9))
CONDITIONS = st.recursive(
    COMPARISONS, lambda parts: st.builds(joined, st.sampled_from(["AND", "OR"]), parts, parts), max_leaves=6
)
MOMENTS = st.none() | st.integers(0, 9)


@given(CONDITIONS, MOMENTS, MOMENTS)
@settings(deadline=None, max_examples=300)
def test_a_span_that_passes_reaches_into_the_bounds(
    spans: SessionContext, condition: Condition, first: int | None, last: int | None
) -> None:
    sql, passes = condition
    plan = spans.sql(f"SELECT * FROM t WHERE {sql}").optimized_logical_plan()
    columns = FilterColumns(SPAN_COLUMNS)
    needs = scan_needs(plan, {"t": columns})
    for begin in range(10):
        for end in range(begin, 10):
            in_range = (first is None or end >= first) and (last is None or begin <= last)
            if passes(begin, end) and in_range:
                # The range of a request bounds them as filters do.
                within = needs["t"].bounds.both(Bounds(TimeRange(first, last))).of_rows_with(SPAN_COLUMNS).time
                assert within.overlaps(begin, end), (sql, first, last, begin, end)
