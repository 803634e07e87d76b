"""Functions on properties take every encoding of a property set, through the planner."""

from __future__ import annotations

import pytest
from query.asking import ask, column, one, refusal
from query.traffic import MadeTraffic

from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError
from micromegas.query.functions.overloads import OverloadedCalls

LIST = "make_array(named_struct('key', 'Env', 'value', 'test'), named_struct('key', 'env', 'value', 'second'))"
JSONB = 'jsonb_parse(\'{"Env": "test"}\')'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (f"property_get({LIST}, 'Env')", "test"),
        (f"property_get(properties_to_dict({LIST}), 'env')", "test"),
        (f"property_get({LIST}, 'ENV')", "test"),
        (f"property_get({LIST}, 'nope')", None),
        (f"property_get(arrow_cast({JSONB}, 'Binary'), 'ENV')", "test"),
        (f"property_get({LIST}, 'Env') || property_get({JSONB}, 'env')", "testtest"),
        (f"properties_length({LIST})", 2),
        (f"properties_length(properties_to_dict({LIST}))", 2),
        (f"properties_length({JSONB})", 1),
        ("properties_length(NULL)", None),
        (f"jsonb_format_json(properties_to_jsonb({LIST}))", '{"Env":"test","env":"second"}'),
        (f"jsonb_format_json(properties_to_jsonb(properties_to_dict({LIST})))", '{"Env":"test","env":"second"}'),
        (f"jsonb_format_json(properties_to_jsonb({JSONB}))", '{"Env":"test"}'),
        (f"jsonb_format_json(properties_to_jsonb(arrow_cast({JSONB}, 'Binary')))", '{"Env":"test"}'),
        (f"jsonb_format_json(properties_to_jsonb(properties_to_jsonb({LIST})))", '{"Env":"test","env":"second"}'),
        (f"properties_to_array(properties_to_dict({LIST})) = {LIST}", True),
        (f"arrow_typeof(properties_to_array({JSONB}))", "Binary"),
        ("properties_to_array(arrow_cast('x', 'Dictionary(Int32, Utf8)'))", "x"),
        (f"arrow_typeof(properties_to_jsonb({LIST}))", "Dictionary(Int32, Binary)"),
    ],
)  # fmt: skip
def test_every_encoding(local_engine: QueryEngine, expression: str, expected: object) -> None:
    assert one(ask(local_engine, f"SELECT {expression} AS r")) == expected
    described = local_engine.describe(f"SELECT {expression} AS r, $1 AS p", None)
    assert described.schema.names == ["r", "p"]


def struct(pair: tuple[str, str]) -> str:
    return f"named_struct('key', '{pair[0]}', 'value', '{pair[1]}')"


def folded(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def test_the_first_match_in_a_list_counts(local_engine: QueryEngine) -> None:
    rows = [
        [("a", "1"), ("a", "2")],
        None,
        [],
        [("b", "3"), ("A", "4"), ("a", "5"), ("B", "6")],
        [("\u00c4", "7"), ("\u00e4", "8"), ("", "9")],
    ]
    lists = ["NULL" if pairs is None else f"make_array({', '.join(map(struct, pairs))})" for pairs in rows]
    table = f"(VALUES {', '.join(f'({number}, {each})' for number, each in enumerate(lists))}) t(n, p)"
    for key in ("a", "A", "B", "\u00e4", "\u00c4", "", "none"):
        expected = [
            None if pairs is None else next((value for name, value in pairs if folded(name) == folded(key)), None)
            for pairs in rows
        ]
        for properties in ("p", "properties_to_dict(p)"):
            found = ask(local_engine, f"SELECT property_get({properties}, '{key}') AS v FROM {table} ORDER BY n")
            assert column(found) == expected, key


def test_columns_of_the_lake_and_lists_in_one_statement(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("a", "b")
    sql = (
        f"SELECT msg, property_get({LIST}, msg) AS g, properties_length(properties) AS n FROM log_entries "
        f"WHERE property_get({LIST}, 'Env') = 'test' AND property_get(properties, 'Env') IS NULL ORDER BY msg"
    )
    table = ask(local_engine, sql)
    assert [column(table, place) for place in range(3)] == [["a", "b"], [None, None], [0, 0]]


def test_a_column_is_called_as_it_was_written(local_engine: QueryEngine) -> None:
    assert ask(local_engine, f"SELECT property_get({LIST}, 'Env')").schema.names == [f"property_get({LIST}, 'Env')"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("property_get(5, 'a')", "call to 'property_get' function: coercion from Int64"),
        (f"property_get({LIST}, 'Env') || property_get(5, 'a')", "coercion from"),
        ("properties_to_jsonb(now())", "call to 'properties_to_jsonb' function: coercion from Timestamp"),
        ("properties_length(make_array(1))", "List\\(Int64\\)"),
        (f"property_get({LIST})", "property_get"),
        ("properties_to_dict(make_array(named_struct('key', NULL, 'value', 'x')))", "a key or value is NULL"),
    ],
)
def test_other_types_are_refused(local_engine: QueryEngine, expression: str, message: str) -> None:
    refused = refusal(local_engine, f"SELECT {expression}")
    assert refused.kind == "invalid"
    assert "_at_" not in refused.message
    with pytest.raises(QueryError, match=message):
        raise refused


def test_the_engine_words_its_refusal_as_we_read_it(local_engine: QueryEngine) -> None:
    """What decides which call gets another form; the wording is that of the pinned engine."""
    with pytest.raises(Exception, match="Failed to coerce") as caught:
        local_engine._sessions.derive().sql(f"SELECT property_get({LIST}, 'a')")
    assert OverloadedCalls.may_mend(QueryError("invalid", str(caught.value)))
    assert not OverloadedCalls.may_mend(QueryError("invalid", "No field named property_get"))
