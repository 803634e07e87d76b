"""The property set kernels against plain dictionaries, in every Arrow layout a view may have."""

from __future__ import annotations

import pyarrow as pa
import pytest
from engine.jsonb_reference import encode
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine

DICT_JSONB = pa.dictionary(pa.int32(), pa.binary())
DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())
PAIRS = pa.list_(
    pa.field("Property", pa.struct([pa.field("key", pa.utf8(), False), pa.field("value", pa.utf8(), False)]), False)
)

KEY = st.sampled_from(["a", "b", "C", "thread-name", "", "é", "missing"])
VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PROPERTY_SET = st.dictionaries(KEY.filter(lambda key: key != "missing"), VALUE, max_size=5)
ROWS = st.lists(st.tuples(st.none() | PROPERTY_SET, st.none() | KEY), max_size=30)


def columns(sets: list[dict[str, str] | None]) -> list[pa.Array]:
    plain = pa.array([None if each is None else encode(each) for each in sets], pa.binary())
    return [plain, plain.dictionary_encode(), plain.cast(pa.large_binary())]


@given(ROWS)
def test_property_get_with_a_key_per_row(rows: list[tuple[dict[str, str] | None, str | None]]):
    keys = pa.array([key for _, key in rows], pa.utf8())
    expected = [None if each is None or key is None else each.get(key) for each, key in rows]
    for properties in columns([each for each, _ in rows]):
        for key_column in (keys, keys.dictionary_encode()):
            result = pa.array(_engine.property_get(properties, key_column))
            assert result.type == DICT_TEXT
            assert result.to_pylist() == expected
            distinct = result.dictionary.to_pylist()
            assert len(set(distinct)) == len(distinct)


@given(st.lists(st.none() | PROPERTY_SET, min_size=1, max_size=30), KEY, st.data())
def test_property_get_of_a_slice_with_one_key(sets: list[dict[str, str] | None], key: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(sets)))
    expected = [None if each is None else each.get(key) for each in sets[start:]]
    for properties in columns(sets):
        keys = pa.array([key] * (len(sets) - start), pa.utf8())
        assert pa.array(_engine.property_get(properties.slice(start), keys)).to_pylist() == expected


@given(st.lists(st.none() | PROPERTY_SET, max_size=20))
def test_properties_length(sets: list[dict[str, str] | None]):
    expected = [None if each is None else len(each) for each in sets]
    for properties in columns(sets):
        result = pa.array(_engine.properties_length(properties))
        assert result.type == pa.int32()
        assert result.to_pylist() == expected


def test_key_case_and_other_types():
    properties = pa.array([encode({"Build": "x", "n": 1, "o": {"b": [True, None]}, "f": 1.0})], pa.binary())
    for key, value in {"BUILD": "x", "n": "1", "o": '{"b":[true,null]}', "F": "1.0", "g": None}.items():
        assert pa.array(_engine.property_get(properties, pa.array([key]))).to_pylist() == [value]


def test_what_is_no_object_has_no_properties():
    properties = pa.array([encode([1, 2]), encode("a"), encode({})], pa.binary())
    assert pa.array(_engine.property_get(properties, pa.array(["a"] * 3))).to_pylist() == [None] * 3
    assert pa.array(_engine.properties_length(properties)).to_pylist() == [None, None, 0]


def test_a_broken_set_fails_with_its_row():
    properties = pa.array([encode({}), b"\x40\x00\x00\x05"], pa.binary())
    with pytest.raises(ValueError, match="row 1: jsonb: 4 bytes where 44 are announced"):
        _engine.property_get(properties, pa.array(["a", "a"]))


@given(st.lists(st.tuples(VALUE, VALUE), max_size=8))
def test_encode_properties(pairs: list[tuple[str, str]]):
    assert _engine.encode_properties(pairs) == encode(dict(pairs))


@given(st.lists(st.none() | st.lists(st.tuples(KEY, VALUE), max_size=5), max_size=20))
def test_properties_to_jsonb(sets: list[list[tuple[str, str]] | None]):
    lists = pa.array(
        [None if each is None else [{"key": key, "value": value} for key, value in each] for each in sets], PAIRS
    )
    expected = [None if each is None else encode(dict(each)) for each in sets]
    result = pa.array(_engine.properties_to_jsonb(lists))
    assert result.type == DICT_JSONB
    assert result.to_pylist() == expected
    assert pa.array(_engine.properties_to_jsonb(lists.slice(1))).to_pylist() == expected[1:]
    assert pa.array(_engine.properties_to_jsonb(result)).to_pylist() == expected


def test_properties_to_jsonb_of_a_dictionary_of_lists():
    values = pa.array([[{"key": "a", "value": "1"}], []], PAIRS)
    column = pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1], pa.int32()), values)
    expected = [encode({}), encode({"a": "1"}), None, encode({})]
    assert pa.array(_engine.properties_to_jsonb(column)).to_pylist() == expected


def test_properties_to_jsonb_refuses_other_shapes():
    with pytest.raises(ValueError, match="is no list of key and value texts"):
        _engine.properties_to_jsonb(pa.array([["a"]]))
    nullable = pa.list_(pa.struct([("key", pa.utf8()), ("value", pa.utf8())]))
    with pytest.raises(ValueError, match="row 0: property key is NULL"):
        _engine.properties_to_jsonb(pa.array([[{"key": None, "value": "x"}]], nullable))
    dropped = pa.array(_engine.properties_to_jsonb(pa.array([[{"key": "a", "value": None}]], nullable)))
    assert dropped.to_pylist() == [encode({})]
