"""Functions in FROM over values: their kernels, and the statements that they become."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from engine.jsonb_reference import encode
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine
from micromegas.query import functions
from micromegas.query.functions import HISTOGRAM, VALUE_TABLES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
CONTAINERS = st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def members(value: Any) -> list[dict[str, Any]]:
    pairs = sorted(value.items(), key=lambda pair: pair[0].encode()) if isinstance(value, dict) else enumerate(value)
    return [{"key": str(key), "value": encode(member)} for key, member in pairs]


def layouts(encoded: list[bytes | None]) -> list[pa.Array]:
    plain = pa.array(encoded, pa.binary())
    return [
        plain,
        plain.dictionary_encode(),
        plain.cast(pa.binary_view()),
        pa.concat_arrays([plain, plain]).slice(len(plain)),
    ]


@given(st.lists(st.none() | CONTAINERS, max_size=6))
def test_members_of_every_layout(values: list[Any]) -> None:
    expected = [None if value is None else members(value) for value in values]
    for column in layouts([None if value is None else encode(value) for value in values]):
        found = pa.array(_engine.jsonb_members(column, pa.array([True] * len(values), pa.bool_())))
        assert found.to_pylist() == expected


@given(st.lists(st.none() | st.lists(VALUES, max_size=4), max_size=6))
def test_elements_of_every_layout(values: list[Any]) -> None:
    expected = [None if each is None else [{"value": encode(item)} for item in each] for each in values]
    for column in layouts([None if each is None else encode(each) for each in values]):
        assert pa.array(_engine.jsonb_elements(column)).to_pylist() == expected


@given(CONTAINERS, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_damaged_values_are_errors_or_rows(value: Any, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(encode(value))
    for place, flip in flips:
        damaged[place % len(damaged)] ^= flip
    column = pa.array([bytes(damaged)], pa.binary())
    for kernel in (_engine.jsonb_elements, lambda each: _engine.jsonb_members(each, pa.array([True]))):
        try:
            rows = pa.array(kernel(column))
        except ValueError:
            continue
        rows.validate(full=True)


def test_kernels_refuse_what_is_no_row_and_other_types() -> None:
    one = pa.array([encode({})], pa.binary())
    with pytest.raises(ValueError, match="jsonb_each: the subquery has no row"):
        _engine.jsonb_members(pa.nulls(1, pa.binary()), pa.array([None], pa.bool_()))
    with pytest.raises(ValueError, match="jsonb_each: Boolean of 2"):
        _engine.jsonb_members(one, pa.array([True, True]))
    with pytest.raises(ValueError, match="jsonb_each: Int64 of 1"):
        _engine.jsonb_members(one, pa.array([1]))
    with pytest.raises(ValueError, match="neither text nor binary"):
        _engine.jsonb_elements(pa.array([1]))
    with pytest.raises(ValueError, match="not an array"):
        _engine.jsonb_elements(one)
    with pytest.raises(ValueError, match="neither an object nor an array"):
        _engine.jsonb_members(pa.array([encode(5)], pa.binary()), pa.array([True]))


def histogram(start: float, end: float, bins: list[int]) -> dict[str, Any]:
    sums = {"min": 0.0, "max": 0.0, "sum": 0.0, "sum_sq": 0.0}
    return {"start": start, "end": end, "count": sum(bins), "bins": bins} | sums


def test_bars() -> None:
    column = pa.array([histogram(0.0, 10.0, [1, 0, 4, 2]), None, histogram(3.0, 3.0, [5, 6])], HISTOGRAM)
    expected = [
        [{"bin_center": center, "count": count} for center, count in [(1.25, 1), (3.75, 0), (6.25, 4), (8.75, 2)]],
        None,
        [{"bin_center": 3.5, "count": 5}, {"bin_center": 4.5, "count": 6}],
    ]
    is_row = pa.array([True] * 3)
    assert pa.array(_engine.histogram_bars(column, is_row)).to_pylist() == expected
    assert pa.array(_engine.histogram_bars(column.slice(2), is_row.slice(2))).to_pylist() == expected[2:]
    with pytest.raises(ValueError, match="above its end"):
        _engine.histogram_bars(pa.array([histogram(1.0, 0.0, [1])], HISTOGRAM), pa.array([True]))


@pytest.fixture(scope="module")
def context() -> SessionContext:
    options = {"datafusion.sql_parser.dialect": "postgresql", "datafusion.execution.target_partitions": "3"}
    made = SessionContext(SessionConfig(options))
    functions.register(made)
    documents = [{"a": 1, "b": [2, 3]}, {"c": None}, None]
    table = pa.record_batch({"n": [0, 1, 2], "j": [None if each is None else encode(each) for each in documents]})
    made.register_record_batches("t", [[table.slice(0, 1)], [table.slice(1, 2)]])
    return made


def rows(context: SessionContext, sql: str, **parameters: pa.Scalar) -> list[tuple[Any, ...]]:
    table = context.sql(functions.expanded(sql), param_values=parameters or None).to_arrow_table()
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("table", VALUE_TABLES, ids=lambda table: table.name)
def test_columns_have_their_names_and_types(context: SessionContext, table: functions.ValueTable) -> None:
    found = context.sql(functions.expanded(f"SELECT * FROM {table.name}(NULL)")).to_arrow_table()
    assert [(field.name, field.type) for field in found.schema] == list(table.columns)
    assert found.num_rows == 0


def test_arguments(context: SessionContext) -> None:
    text = 'jsonb_parse(\'{"a": 1, "b": [2, 3]}\')'
    whole = [("a", encode(1)), ("b", encode([2, 3]))]
    assert rows(context, f"SELECT * FROM jsonb_each({text})") == whole
    assert rows(context, f"SELECT * FROM jsonb_each((SELECT {text}))") == whole
    assert rows(context, "SELECT * FROM jsonb_each((SELECT j FROM t WHERE n = 0))") == whole
    inner = "jsonb_get((SELECT j FROM t WHERE n = 0), 'b')"
    assert rows(context, f"SELECT * FROM jsonb_each({inner})") == [("0", encode(2)), ("1", encode(3))]
    assert sorted(rows(context, "SELECT key FROM jsonb_each((SELECT j FROM t))")) == [("a",), ("b",), ("c",)]
    assert rows(context, "SELECT * FROM jsonb_each((SELECT j FROM t WHERE n = 2))") == []
    assert rows(context, "SELECT * FROM jsonb_each((WITH x AS (SELECT j FROM t WHERE n = 0) SELECT j FROM x))") == whole
    parameter = pa.scalar(json.dumps([7, 8]))
    assert rows(
        context, "SELECT jsonb_as_i64(value) FROM jsonb_array_elements(jsonb_parse($1))", **{"1": parameter}
    ) == [(7,), (8,)]


def test_places(context: SessionContext) -> None:
    each = "jsonb_each((SELECT j FROM t WHERE n = 0))"
    assert rows(context, f"SELECT x.k FROM {each} AS x(k, v) WHERE jsonb_as_i64(x.v) = 1") == [("a",)]
    assert rows(context, f"SELECT count(*) FROM t, {each} e") == [(6,)]
    assert rows(context, f"SELECT l.key FROM {each} l JOIN {each} r ON l.key = r.key ORDER BY 1") == [("a",), ("b",)]
    assert rows(
        context, f"WITH e AS (SELECT key FROM {each}) SELECT key FROM e UNION ALL SELECT key FROM e ORDER BY 1 LIMIT 2"
    ) == [("a",), ("a",)]
    assert rows(context, f"SELECT n FROM t WHERE EXISTS (SELECT 1 FROM {each} WHERE key = 'b') AND n = 1") == [(1,)]
    assert rows(context, f"SELECT (SELECT max(key) FROM {each}) m") == [("b",)]
    nested = f"jsonb_array_elements((SELECT value FROM {each} WHERE key = 'b'))"
    assert rows(context, f"SELECT jsonb_as_i64(value) v FROM {nested} ORDER BY v") == [(2,), (3,)]
    bars = "expand_histogram((SELECT make_histogram(0.0, 4.0, 2, n) FROM t))"
    assert rows(context, f"SELECT bin_center, count FROM {bars} WHERE count > 0 ORDER BY 1") == [(1.0, 2), (3.0, 1)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM jsonb_each((SELECT j FROM t WHERE n = 7))", "jsonb_each: the subquery has no row"),
        (
            "SELECT * FROM expand_histogram((SELECT make_histogram(0, 1, 1, n) FROM t WHERE n > 9 GROUP BY n))",
            "has no row",
        ),
        ("SELECT * FROM jsonb_each(jsonb_parse('5'))", "neither an object nor an array"),
        ("SELECT * FROM jsonb_array_elements((SELECT j FROM t))", "not an array"),
        ("SELECT * FROM jsonb_each((SELECT j, n FROM t))", "2 columns but only 1"),
        ("SELECT * FROM jsonb_each(j)", "No field named j"),
        ("SELECT jsonb_each(j) FROM t", "Invalid function 'jsonb_each'"),
        ("SELECT * FROM jsonb_each()", "jsonb_each\\(jsonb\\): 0 arguments given, 1 expected"),
        ("SELECT * FROM jsonb_each(NULL, NULL)", "2 arguments given, 1 expected"),
        ("SELECT * FROM expand_histogram(5)", "coerce"),
    ],
)
def test_errors(context: SessionContext, sql: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        rows(context, sql)


def test_no_row_is_told_from_null_and_from_many(context: SessionContext) -> None:
    assert rows(context, "SELECT * FROM jsonb_array_elements((SELECT j FROM t WHERE n = 7))") == []
    assert rows(context, "SELECT * FROM expand_histogram((SELECT NULL))") == []
    two = "SELECT n, make_histogram(0.0, 4.0, 2, n) AS h FROM t WHERE n < 2 GROUP BY n"
    found = rows(context, f"SELECT sum(count) FROM expand_histogram((SELECT h FROM ({two})))")
    assert found == [(2,)]
