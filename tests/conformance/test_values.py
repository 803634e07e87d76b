"""Shapes 20 and 50 to 52 of lakehouse §9: functions over values. 12 is among the logs, 18 to 22 among the measures."""

from __future__ import annotations

import json

import pytest
from conformance.conftest import Asked
from conformance.test_measures import WITHIN, bins_of, measures

SETS = ["properties", "properties_to_dict({})", "properties_to_array(properties_to_dict({}))"]


def test_20_bars(asked: Asked) -> None:
    sql = (
        "SELECT bin_center, count FROM expand_histogram((SELECT make_histogram(0.0, 50.0, 25, value) "
        "FROM measures WHERE name = 'x'))"
    )
    bins = bins_of([each.value for each in measures(asked, "x")], 0.0, 50.0, 25)
    assert asked.rows(sql, WITHIN) == [(2.0 * place + 1.0, count) for place, count in enumerate(bins)]
    assert [str(field.type) for field in asked.table(sql, WITHIN).schema] == ["double", "uint64"]


def test_50_unnested_properties(asked: Asked) -> None:
    process = asked.world.processes[0]
    sql = (
        "SELECT key, jsonb_as_string(value) FROM jsonb_each((SELECT properties FROM processes "
        f"WHERE process_id='{process.process_id}'))"
    )
    assert asked.rows(sql) == sorted(process.properties.items())


def test_51_json_path(asked: Asked) -> None:
    sql = """SELECT jsonb_path_query_first(jsonb_parse('[{"a":1},{"a":2}]'), '$[*] ? (@.a == 2)')"""
    ((found,),) = asked.rows(sql)
    ((text,),) = asked.rows(sql.replace("SELECT ", "SELECT jsonb_format_json(") + ")")
    assert found == bytes.fromhex("40000001 10000001 20000002 61 5002")
    assert json.loads(text) == {"a": 2}


@pytest.mark.parametrize(
    "set_name", ["properties", "properties_to_dict({})", "properties_to_array(properties_to_dict({}))"]
)
def test_52_property_functions(asked: Asked, set_name: str) -> None:
    process = asked.world.processes[0]
    pairs = ", ".join(f"named_struct('key', '{key}', 'value', '{value}')" for key, value in process.properties.items())
    properties = set_name.format(f"make_array({pairs})")
    key, value = next(iter(process.properties.items()))
    sql = (
        f"SELECT properties_length({properties}), property_get({properties}, '{key.swapcase()}'), "
        f"property_get({properties}, 'no such key'), jsonb_format_json(properties_to_jsonb({properties})) "
        f"FROM processes WHERE process_id = '{process.process_id}'"
    )
    ((count, found, missing, text),) = asked.rows(sql)
    assert (count, found, missing) == (len(process.properties), value, None)
    assert json.loads(text) == dict(process.properties)
    empty = "SELECT properties_length(jsonb_parse('{}')), property_get(jsonb_parse('{}'), 'a')"
    assert asked.rows(empty) == [(0, None)]
