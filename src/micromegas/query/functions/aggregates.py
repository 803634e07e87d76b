"""Aggregate functions of ours, which exist in SQL text only: a call becomes a scalar kernel over native `array_agg`.

A Python accumulator is one object per group called once per batch: a thousand times slower over many groups, and the
best for one, see `accumulators.py`. A plan can't be changed after the fact, as one over tables in memory can't be
serialized. So calls are expanded in the statement before it is planned; only its own text is moved about in it, and no
value from elsewhere ever gets in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from micromegas.query.functions.statement import Value


@dataclass(frozen=True, slots=True)
class AggregateFunction:
    """An aggregate function; a call may have FILTER and OVER clauses, but no DISTINCT and no ORDER BY within."""

    name: str
    arguments: tuple[str, ...]
    description: str
    sql: Callable[[Sequence[Value], str], str]
    """The SQL of a call from its arguments and the text of its FILTER and OVER clauses."""
    sql_of_one_group: Callable[[Sequence[Value], str], str]
    """The same for a call without GROUP BY and OVER: one accumulator takes any number of rows in the memory of one."""
    example: str
    """A statement for docs/functions.md, see tools/functions_page.py."""

    @property
    def signature(self) -> str:
        """`name(argument, …)` as users write it."""
        return f"{self.name}({', '.join(self.arguments)})"


def _casts(bounds: Sequence[Value]) -> list[str]:
    types = ("DOUBLE", "DOUBLE", "BIGINT")
    return [f"CAST({bound.sql} AS {sql_type})" for bound, sql_type in zip(bounds, types, strict=True)]


def _make_one_histogram(arguments: Sequence[Value], clauses: str) -> str:
    *bounds, values = arguments
    casts = ", ".join(_casts(bounds))
    accumulated = f"histogram_of_rows({casts}, CAST({values.sql} AS DOUBLE)){clauses}"
    if all(bound.is_constant for bound in bounds):
        # an accumulator without rows has not seen the bounds
        return f"coalesce({accumulated}, histogram_of_list({casts}, NULL))"
    return accumulated


def _make_histogram(arguments: Sequence[Value], clauses: str) -> str:
    *bounds, values = arguments
    casts = _casts(bounds)
    collected = f"array_agg(CAST({values.sql} AS DOUBLE)){clauses}"
    if all(bound.is_constant for bound in bounds):
        return f"histogram_of_list({', '.join(casts)}, {collected})"
    # min and max leave out NaN, which no bound may be
    start, end, nb_bins = casts
    finite = [f"nanvl({cast}, CAST('inf' AS DOUBLE))" for cast in (start, end)]
    extremes = ", ".join(f"min({bound}){clauses}, max({bound}){clauses}" for bound in (*finite, nb_bins))
    is_null = " OR ".join(f"({bound.sql}) IS NULL" for bound in bounds)
    return f"histogram_of_group({extremes}, bool_or({is_null}){clauses}, {collected})"


def _sum_histograms(arguments: Sequence[Value], clauses: str) -> str:
    return f"sum_of_histograms(array_agg({arguments[0].sql}){clauses})"


AGGREGATES = (
    AggregateFunction(
        "make_histogram",
        ("start", "end", "nb_bins", "value"),
        "The histogram of the values of a group, NULLs left out. start, end and nb_bins are constant over the group, "
        "otherwise it is an error, as are NULL, non-finite or reversed bounds and fewer than one bin. A group without "
        "rows gives an empty histogram if the bounds are literals or parameters, otherwise NULL.",
        _make_histogram,
        _make_one_histogram,
        "SELECT make_histogram(0.0, 50.0, 5, value) AS histogram FROM measures WHERE name = 'frame_time'",
    ),
    AggregateFunction(
        "sum_histograms",
        ("histogram",),
        "The sum of the histograms of a group, NULLs left out; NULL when there is none. Histograms of different start, "
        "end or number of bins are an error.",
        _sum_histograms,
        lambda arguments, clauses: f"sum_of_rows({arguments[0].sql}){clauses}",
        "WITH h AS (SELECT date_bin(INTERVAL '200 milliseconds', time) AS t, make_histogram(0.0, 50.0, 5, value) AS h "
        "FROM measures WHERE name = 'frame_time' GROUP BY t) "
        "SELECT count(*) AS histograms, count_from_histogram(sum_histograms(h)) AS n FROM h",
    ),
)
