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
        (f"property_get(properties_to_dict({LIST}), 'env')", "second"),
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
