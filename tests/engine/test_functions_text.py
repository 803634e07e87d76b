"""The expansion of aggregate calls in SQL text: it finds the calls, all of them, and nothing but calls."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas.query import QueryError, functions
from micromegas.query.functions.sql_text import Kind, tokens

CALL = "sum_histograms(h)"
EXPANDED = "sum_of_rows(h)"
NAME = f'"{CALL}"'


@pytest.mark.parametrize(
    ("sql", "expanded"),
    [
        (CALL, EXPANDED),
        ("Sum_Histograms (h)", EXPANDED),
        ('"sum_histograms"(h)', EXPANDED),
        (f"SELECT {CALL}, {CALL} x FROM t -- end", f"SELECT {EXPANDED} AS {NAME}, {EXPANDED} x FROM t -- end"),
        (
            f"/* {CALL} /* nested */ {CALL} */ SELECT {CALL}",
            f"/* {CALL} /* nested */ {CALL} */ SELECT {EXPANDED} AS {NAME}",
        ),
        (f"SELECT f({CALL}, g({CALL}))", f'SELECT f({EXPANDED}, g({EXPANDED})) AS "f({CALL}, g({CALL}))"'),
        (
            f"SELECT {CALL} FILTER (WHERE a) FROM t",
            f'SELECT {EXPANDED} FILTER (WHERE a) AS "{CALL} FILTER (WHERE a)" FROM t',
        ),
        (
            "SELECT make_histogram(0, 1, 2, v) FILTER (WHERE a)",
            "SELECT coalesce(histogram_of_rows(CAST(0 AS DOUBLE), CAST(1 AS DOUBLE), CAST(2 AS BIGINT), "
            "CAST(v AS DOUBLE)) FILTER (WHERE a), histogram_of_list(CAST(0 AS DOUBLE), CAST(1 AS DOUBLE), "
            'CAST(2 AS BIGINT), NULL)) AS "make_histogram(0, 1, 2, v) FILTER (WHERE a)"',
        ),
        (f"SELECT {CALL} + 1 FROM t", f'SELECT {EXPANDED} + 1 AS "{CALL} + 1" FROM t'),
        (f"SELECT a, {CALL}['x'] , b", f"""SELECT a, {EXPANDED}['x'] AS "{CALL}['x']" , b"""),
        (f'SELECT f( "a" -- why\n,{CALL})', f'SELECT f( "a" -- why\n,{EXPANDED}) AS "f( ""a"" ,{CALL})"'),
        (
            f"SELECT DISTINCT ON (a) {CALL} UNION SELECT 1",
            f"SELECT DISTINCT ON (a) {EXPANDED} AS {NAME} UNION SELECT 1",
        ),
        (
            f"SELECT 1 IS DISTINCT FROM ({CALL})",
            f'SELECT 1 IS DISTINCT FROM ({EXPANDED}) AS "1 IS DISTINCT FROM ({CALL})"',
        ),
        (
            f'SELECT {CALL} h, {CALL} AS "i", 1 WHERE {CALL}',
            f'SELECT {EXPANDED} h, {EXPANDED} AS "i", 1 WHERE {EXPANDED}',
        ),
        (f"SELECT CASE WHEN a THEN {CALL} END", f"SELECT CASE WHEN a THEN {EXPANDED} END"),
        (f"SELECT * REPLACE ({CALL} AS a)", f"SELECT * REPLACE ({EXPANDED} AS a)"),
        (f"SELECT a FROM (SELECT {CALL}) AS b", f"SELECT a FROM (SELECT {EXPANDED} AS {NAME}) AS b"),
        ("sum_histograms(h -- the histogram\n)", EXPANDED),
        ("sum_histograms(f(a, b)[1, 2])", "sum_of_rows(f(a, b)[1, 2])"),
        ("sum_histograms(CASE WHEN a = ')' THEN h END)", "sum_of_rows(CASE WHEN a = ')' THEN h END)"),
        (f"sum_histograms((SELECT {CALL}))", f"sum_of_rows((SELECT {EXPANDED} AS {NAME}))"),
        (f"{CALL} FILTER (WHERE a) x", "sum_of_rows(h) FILTER (WHERE a) x"),
        (f"{CALL} over w, 1", "sum_of_histograms(array_agg(h) over w), 1"),
        (
            f"{CALL} filter(where a) OVER (ORDER BY b)",
            "sum_of_histograms(array_agg(h) filter(where a) OVER (ORDER BY b))",
        ),
        (f"{CALL} FILTER (WHERE {CALL} > 1)", f"sum_of_rows(h) FILTER (WHERE {EXPANDED} > 1)"),
        (f"SELECT 1; SELECT {CALL}", f"SELECT 1; SELECT {EXPANDED} AS {NAME}"),
    ],
)
def test_calls_are_expanded(sql: str, expanded: str):
    assert functions.expanded(sql) == expanded


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
    assert functions.expanded(sql) == sql


BARS = (
    "(SELECT r['bin_center'] AS bin_center, r['count'] AS count FROM "
    "(SELECT unnest(histogram_bars(s.v, s.is_row)) AS r FROM (SELECT h AS v, true AS is_row) AS s))"
)


@pytest.mark.parametrize(
    "place",
    [
        "FROM {}",
        "FROM a, {} AS x(y, z)",
        "FROM a JOIN b ON c = d, {} x",
        "JOIN ({} CROSS JOIN e) ON f",
        "FROM f(g, h[1]), {}",
    ],
)
def test_functions_in_from_are_expanded(place: str):
    assert functions.expanded(f"SELECT * {place.format('Expand_Histogram(h)')}") == f"SELECT * {place.format(BARS)}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT expand_histogram(h)",
        "SELECT a, expand_histogram(h) FROM t",
        "SELECT (expand_histogram(h)) FROM t",
        "SELECT 1 FROM t WHERE a IN (1, expand_histogram(h))",
        "SELECT 1 FROM t ORDER BY 1, expand_histogram(h)",
        "SELECT 1 FROM t GROUP BY a, expand_histogram(h)",
        "SELECT * FROM expand_histogram",
        "SELECT * FROM x.expand_histogram(h)",
        "WITH a AS (SELECT 1), expand_histogram(h) AS (SELECT 2) SELECT 3",
    ],
)
def test_elsewhere_they_stay(sql: str):
    assert functions.expanded(sql) == sql


def test_a_subquery_becomes_a_table():
    sql = functions.expanded("SELECT * FROM jsonb_array_elements((SELECT a FROM b)) AS c")
    assert sql == (
        "SELECT * FROM (SELECT r['value'] AS value FROM "
        "(SELECT unnest(jsonb_elements(s.v)) AS r FROM (SELECT a FROM b) AS s(v))) AS c"
    )
    # an expression that has a subquery in it is one value
    sql = functions.expanded("SELECT * FROM jsonb_array_elements((SELECT 1) + (SELECT 2))")
    assert "(SELECT (SELECT 1) + (SELECT 2) AS v, true AS is_row) AS s" in sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a, {} AS b FROM t GROUP BY a",
        "SELECT a FROM t GROUP BY a HAVING ({} IS NULL)",
        "SELECT a, f(g({})) AS b FROM (SELECT 1) t GROUP BY (a)",
        "SELECT 1 AS a UNION SELECT {} AS b FROM t GROUP BY a",
    ],
)
def test_calls_over_many_groups(sql: str):
    assert functions.expanded(sql.format(CALL)) == sql.format("sum_of_histograms(array_agg(h))")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT {} AS b FROM (SELECT 1 FROM t GROUP BY a) t",
        "SELECT {} AS b FROM t UNION SELECT 1 FROM t GROUP BY a",
        "SELECT 1 FROM t WHERE a = (SELECT {} AS b FROM t) GROUP BY a",
        'SELECT {} AS b, "group" FROM t',
    ],
)
def test_calls_over_one_group(sql: str):
    assert functions.expanded(sql.format(CALL)) == sql.format(EXPANDED)


def test_literals_and_computed_bounds():
    casts = "CAST(-1.5e3 AS DOUBLE), CAST(+(2*$hi) AS DOUBLE), CAST($3 AS BIGINT)"
    one_group = functions.expanded("make_histogram(-1.5e3, +(2*$hi), $3, v) FILTER (WHERE ok)")
    assert one_group == (
        f"coalesce(histogram_of_rows({casts}, CAST(v AS DOUBLE)) FILTER (WHERE ok), histogram_of_list({casts}, NULL))"
    )
    literal = functions.expanded("SELECT make_histogram(-1.5e3, +(2*$hi), $3, v) AS h GROUP BY a")
    assert literal == f"SELECT histogram_of_list({casts}, array_agg(CAST(v AS DOUBLE))) AS h GROUP BY a"
    computed = functions.expanded("SELECT make_histogram(lo, 2, 3, v) FILTER (WHERE ok) AS h GROUP BY a")
    assert computed.startswith("SELECT histogram_of_group(min(nanvl(CAST(lo AS DOUBLE), ")
    assert computed.count("FILTER (WHERE ok)") == 8
    assert functions.expanded("make_histogram(lo, 2, 3, v)") == (
        "histogram_of_rows(CAST(lo AS DOUBLE), CAST(2 AS DOUBLE), CAST(3 AS BIGINT), CAST(v AS DOUBLE))"
    )


def test_deep_nesting_is_refused_without_harm():
    nested = "sum_histograms(" * 5000 + "h" + ")" * 5000
    with pytest.raises(QueryError, match="nested deeper than 16"):
        functions.expanded(nested)
    assert functions.expanded("sum_histograms(" * 20000) == "sum_histograms(" * 20000
    assert functions.expanded("(" * 50000 + CALL + ")" * 50000) == "(" * 50000 + EXPANDED + ")" * 50000


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
        expanded = functions.expanded(sql)
    if "sum_histograms" not in sql and "make_histogram" not in sql:
        assert expanded == sql
    if expanded is not None:
        # no whole call is left, unless in a part that can't be read
        assert functions.expanded(expanded) == expanded


@given(st.lists(PIECES, max_size=40).map("".join))
def test_tokens_are_in_order_and_apart(sql: str):
    position = 0
    for token in tokens(sql):
        assert position <= token.start < token.end
        position = token.end
        assert token.kind is Kind.SYMBOL or len(token.value) <= token.end - token.start
    assert position <= len(sql)


@pytest.mark.parametrize("opening", ["'", '"', "E'", "e'b\\'", "$$", "$a0$ $a1$ $a2$", "/*"])
def test_a_quotation_without_its_end_is_looked_through_once(opening: str) -> None:
    """What stands in it is no token: to look for ends from within would take time by the square of the text."""
    assert [token.value for token in tokens(f"a, {opening} b c")] == ["a", ","]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_end_of_a_line_ends_a_comment(end: str) -> None:
    assert [token.value for token in tokens(f"a --b{end}c")] == ["a", "c"]
