"""Functions whose results can be any number of times larger than their arguments."""

from __future__ import annotations

import time

import pytest
from datafusion import SessionConfig, SessionContext

from micromegas.query import QueryError, functions
from micromegas.query.errors import classified
from micromegas.query.functions.growth import growth_checks

LIMIT = 1_000_000
BATCH = 1000


@pytest.fixture
def context() -> SessionContext:
    made = SessionContext(
        SessionConfig(
            {
                "datafusion.sql_parser.dialect": "postgresql",
                "datafusion.sql_parser.map_string_types_to_utf8view": "false",
                "datafusion.execution.batch_size": str(BATCH),
            }
        )
    )
    functions.register(made, max_bytes=LIMIT)
    return made


def values(context: SessionContext, expression: str, source: str = "") -> list[object]:
    table = context.sql(functions.expanded(f"SELECT {expression} AS answer {source}")).to_arrow_table()
    return table.column("answer").to_pylist()


# Small by their text, and checked for what the text does not tell.
EQUAL = [
    ("lpad('x', 5)", "lpad('x', 2 + 3)", "    x"),
    ("rpad('x', 5, 'ab')", "rpad('x', 2 + 3, 'ab')", "xabab"),
    ("repeat('ab', 3)", "repeat('a' || 'b', 3)", "ababab"),
    ("repeat('ab', -1)", "repeat('a' || 'b', -1)", ""),
    ("replace('abc', 'b', 'xx')", "replace('abc', 'b', 'x' || 'x')", "axxc"),
    ("replace('abc', '', '-')", "replace('abc', '', '-' || '')", "abc"),
    ("array_repeat(7, 3)", "array_repeat(7, 1 + 2)", [7, 7, 7]),
    ("list_resize([1, 2], 3, 9)", "list_resize([1, 2], 2 + 1, 9)", [1, 2, 9]),
    ("range(3)", "range(70000 - 69997)", [0, 1, 2]),
    ("generate_series(5, 1, -2)", "generate_series(5, 70000 - 69999, -2)", [5, 3, 1]),
    ("lpad(5, 3, '0')", "lpad(5, 1 + 2, '0')", "005"),
    ("lpad(NULL, 3)", "lpad(NULL, 1 + 2)", None),
    ("repeat('x', NULL)", "repeat('x', CAST(NULL AS BIGINT))", None),
    ("lpad(arrow_cast('x', 'Dictionary(Int32, Utf8)'), 2)", "lpad(arrow_cast('x', 'Utf8View'), 1 + 1)", " x"),
]


@pytest.mark.parametrize(("small", "checked", "answer"), EQUAL)
def test_a_check_changes_no_answer(context: SessionContext, small: str, checked: str, answer: object) -> None:
    if "NULL" not in small:
        assert functions.expanded(small) == small
    assert functions.expanded(checked) != checked
    assert values(context, small) == values(context, checked) == [answer]


def test_rows_that_are_null_or_empty_are_checked_with_the_others(context: SessionContext) -> None:
    source = "FROM (VALUES ('a', 2), (NULL, 3), ('b', NULL), ('c', -3), ('', 9000000000)) AS t(v, n)"
    assert values(context, "repeat(v, n)", source) == ["aa", None, None, "", ""]
    assert values(context, "replace(v, 'a', v)", source) == ["a", None, "b", "c", ""]
    assert values(context, "array_length(array_repeat(v, greatest(n, 0)))", source.replace("9000000000", "4"))[0] == 2


@pytest.mark.parametrize(
    "expression",
    [
        "lpad('x', 1000001)",
        "rpad('x', 400000000, 'yz')",
        "repeat('xx', 500001)",
        "replace('aaaaa', 'a', repeat('y', 300000))",
        "array_repeat(1, 125001)",
        "list_repeat('x', 400000000)",
        "array_resize([1], 125001)",
        "list_resize([1], 9000000000, 7)",
        "range(125002)",
        "generate_series(1, 1000 * 1000 * 1000)",
        "range(1000000000, 0, -1)",
        "REPEAT /* */ ('x', 1000001)",
        "\"lpad\"('x', 1000001)",
        "(SELECT lpad(s, n) FROM (SELECT 'x' AS s, 1000001 AS n))",
    ],
)
def test_more_than_the_limit_is_refused_while_running(context: SessionContext, expression: str) -> None:
    for form in (expression, f"length(md5(CAST({expression} AS VARCHAR)))"):
        frame = context.sql(functions.expanded(f"SELECT {form} AS answer"))
        # planning does not run it, which would hold the interpreter's lock
        plan = frame.optimized_logical_plan().display_indent()
        assert any(f"{check.name}(" in plan for check in growth_checks())
        with pytest.raises(Exception, match="Resources exhausted") as raised:
            frame.collect()
        error = classified(raised.value)
        assert error.kind == "exhausted"
        assert "at most 1000000" in error.message
        assert ".py" not in error.message


@pytest.mark.parametrize(
    ("expression", "source"),
    [
        ("length(repeat('x', 2049))", "generate_series(1, 1000)"),
        ("length(lpad('x', 2049))", "generate_series(1, 1000)"),
        ("length(lpad('x', value))", "generate_series(1501, 2500)"),
        ("length(repeat(value::text, 1000))", "generate_series(1, 1000)"),
        ("array_length(array_repeat(value, 257))", "generate_series(1, 1000)"),
        ("length(replace(value::text, '1', repeat('y', 100000)))", "generate_series(1, 1000)"),
    ],
)
def test_all_rows_of_a_batch_count(context: SessionContext, expression: str, source: str) -> None:
    assert len(values(context, expression, f"FROM (SELECT * FROM {source} LIMIT 5)")) == 5
    with pytest.raises(Exception, match="Resources exhausted"):
        values(context, expression, f"FROM {source}")


def test_a_constant_that_takes_long_does_not_hold_the_interpreter() -> None:
    context = SessionContext(SessionConfig({"datafusion.sql_parser.dialect": "postgresql"}))
    functions.register(context, max_bytes=400_000_000)
    frame = context.sql(functions.expanded("SELECT length(lpad('x', 100000000)) AS n"))
    begin = time.thread_time()
    plan = frame.optimized_logical_plan().display_indent()
    planning = time.thread_time() - begin
    assert "padded_length(Int64(100000000))" in plan
    begin = time.process_time()
    assert frame.to_arrow_table().column("n").to_pylist() == [100_000_000]
    # the ratio: what planning took of the work, which it would all take if it were done there
    assert planning < (time.process_time() - begin) / 2


def test_calls_in_groups_joins_and_windows(context: SessionContext) -> None:
    rows = "(VALUES ('a', 1), ('b', 2), ('a', 3)) AS t(v, n)"
    sql = f"SELECT repeat(v, 2999) AS r, sum(n) FROM {rows} GROUP BY repeat(v, 2999) ORDER BY repeat(v, 2999)"
    table = context.sql(functions.expanded(sql)).to_arrow_table()
    assert [(text[0], len(text), total) for text, total in zip(*table.to_pydict().values(), strict=True)] == [
        ("a", 2999, 4),
        ("b", 2999, 2),
    ]
    sql = f"SELECT count(*) AS answer FROM {rows} JOIN {rows.replace(' t(', ' u(')} ON lpad(t.v, t.n) = lpad(u.v, u.n)"
    assert context.sql(functions.expanded(sql)).to_arrow_table().column("answer").to_pylist() == [3]
    sql = f"SELECT length(max(rpad(v, 3000)) OVER (PARTITION BY rpad(v, n))) AS answer FROM {rows}"
    assert context.sql(functions.expanded(sql)).to_arrow_table().column("answer").to_pylist() == [3000] * 3


def test_what_looks_like_a_call_stays(context: SessionContext) -> None:
    for sql in (
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT * FROM a, range(1000000000)",
        "SELECT range, repeat FROM t",
        "SELECT 'lpad(x, 100000)', t.lpad(x, 100000)",
        "SELECT lpad(x), repeat(), replace(a, , b)",
        "SELECT generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', INTERVAL '1 hour')",
    ):
        assert functions.expanded(sql) == sql


def test_a_statement_that_grows_with_each_nested_call_is_refused() -> None:
    nested = "a"
    for _ in range(14):
        nested = f"make_histogram({nested}, 2, 3, v)"
    with pytest.raises(QueryError, match="statement of more than 4194304 characters"):
        functions.expanded(f"SELECT {nested} FROM t GROUP BY g")
