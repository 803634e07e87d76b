"""The expansion of aggregate calls in SQL text: it finds the calls, all of them, and nothing but calls."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas.query import QueryError
from micromegas.query.functions import expand_aggregates
from micromegas.query.functions.sql_text import Kind, tokens

CALL = "sum_histograms(h)"
EXPANDED = "sum_of_histograms(array_agg(h))"


@pytest.mark.parametrize(
    ("sql", "expanded"),
    [
        (CALL, EXPANDED),
        ("Sum_Histograms (h)", EXPANDED),
        ('"sum_histograms"(h)', EXPANDED),
        (f"SELECT {CALL}, {CALL} x FROM t -- end", f"SELECT {EXPANDED}, {EXPANDED} x FROM t -- end"),
        (f"/* {CALL} /* nested */ {CALL} */ SELECT {CALL}", f"/* {CALL} /* nested */ {CALL} */ SELECT {EXPANDED}"),
        (f"SELECT f({CALL}, g({CALL}))", f"SELECT f({EXPANDED}, g({EXPANDED}))"),
        ("sum_histograms(h -- the histogram\n)", EXPANDED),
        ("sum_histograms(f(a, b)[1, 2])", "sum_of_histograms(array_agg(f(a, b)[1, 2]))"),
        ("sum_histograms(CASE WHEN a = ')' THEN h END)", "sum_of_histograms(array_agg(CASE WHEN a = ')' THEN h END))"),
        (f"sum_histograms((SELECT {CALL}))", f"sum_of_histograms(array_agg((SELECT {EXPANDED})))"),
        (f"{CALL} FILTER (WHERE a) x", "sum_of_histograms(array_agg(h) FILTER (WHERE a)) x"),
        (f"{CALL} over w, 1", "sum_of_histograms(array_agg(h) over w), 1"),
        (
            f"{CALL} filter(where a) OVER (ORDER BY b)",
            "sum_of_histograms(array_agg(h) filter(where a) OVER (ORDER BY b))",
        ),
        (f"{CALL} FILTER (WHERE {CALL} > 1)", f"sum_of_histograms(array_agg(h) FILTER (WHERE {EXPANDED} > 1))"),
        (f"SELECT 1; SELECT {CALL}", f"SELECT 1; SELECT {EXPANDED}"),
    ],
)
def test_calls_are_expanded(sql: str, expanded: str):
    assert expand_aggregates(sql) == expanded


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT sum_histograms FROM t",
        f"SELECT '{CALL}'",
        f"SELECT 'it''s {CALL}'",
        f"SELECT E'\\'{CALL}'",
        f'SELECT "{CALL}"',
        f'SELECT "a""{CALL}"',
        f"SELECT $${CALL}$$",
        f"SELECT $tag$ $$ {CALL} $tag$",
        f"SELECT 1 -- {CALL}",
        f"/* {CALL} */ SELECT 1",
        f"SELECT my_{CALL}",
        f"SELECT other.{CALL}",
        f"SELECT other . {CALL}",
        '"SUM_HISTOGRAMS"(h)',
        f"SELECT '{CALL}",
        f'SELECT "{CALL}',
        f"SELECT /* {CALL}",
        "SELECT sum_histograms(h",
        "SELECT sum_histograms(h]",
        "SELECT ) sum_histograms(h",
        "sum_histograms",
    ],
)
def test_what_is_no_whole_call_stays(sql: str):
    assert expand_aggregates(sql) == sql


def test_literals_and_computed_bounds():
    literal = expand_aggregates("make_histogram(-1.5e3, +(2*$hi), $3, v)")
    assert literal == (
        "histogram_of_list(CAST(-1.5e3 AS DOUBLE), CAST(+(2*$hi) AS DOUBLE), CAST($3 AS BIGINT), "
        "array_agg(CAST(v AS DOUBLE)))"
    )
    computed = expand_aggregates("make_histogram(lo, 2, 3, v) FILTER (WHERE ok)")
    assert computed.startswith("histogram_of_group(min(CAST(lo AS DOUBLE)) FILTER (WHERE ok), max(")
    assert computed.count("FILTER (WHERE ok)") == 8


def test_deep_nesting_is_refused_without_harm():
    nested = "sum_histograms(" * 5000 + "h" + ")" * 5000
    with pytest.raises(QueryError, match="nested deeper than 16"):
        expand_aggregates(nested)
    assert expand_aggregates("sum_histograms(" * 20000) == "sum_histograms(" * 20000
    assert expand_aggregates("(" * 50000 + CALL + ")" * 50000) == "(" * 50000 + EXPANDED + ")" * 50000


PIECES = st.sampled_from(
    [
        *(
            "sum_histograms",
            "make_histogram",
            "(",
            ")",
            "[",
            "]",
            ",",
            "'",
            '"',
            "$$",
            "$a$",
            "--",
            "/*",
            "*/",
            "\n",
            " ",
        ),
        *("filter", "over", "where", "distinct", ".", "E'", "\\", "1", "$1", "h", "é", "{", "}", ";"),
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_expanded_or_refused(sql: str):
    expanded = None
    with contextlib.suppress(QueryError):
        expanded = expand_aggregates(sql)
    if "sum_histograms" not in sql and "make_histogram" not in sql:
        assert expanded == sql
    if expanded is not None:
        # no whole call is left, unless in a part that can't be read
        assert expand_aggregates(expanded) == expanded


@given(st.lists(PIECES, max_size=40).map("".join))
def test_tokens_are_in_order_and_apart(sql: str):
    position = 0
    for token in tokens(sql):
        assert position <= token.start < token.end
        position = token.end
        assert token.kind is Kind.SYMBOL or len(token.value) <= token.end - token.start
    assert position <= len(sql)
