"""The JSONB kernels against a plain Python encoder and the standard library's JSON."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest
from engine.jsonb_reference import encode
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine

DICT_JSONB = pa.dictionary(pa.int32(), pa.binary())
DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([-129, -128, -1, 0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, -(2**31) - 1]),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


def parse(*texts: str | None) -> list[bytes | None]:
    return pa.array(_engine.jsonb_parse(pa.array(texts, pa.utf8()))).to_pylist()


def jsonb(*values: object) -> pa.Array:
    return pa.array([encode(value) for value in values], pa.binary())


@given(JSON)
def test_parse_writes_the_documented_bytes(value: object):
    assert parse(json.dumps(value)) == [encode(value)]
    assert parse(json.dumps(value, ensure_ascii=False, indent=2)) == [encode(value)]


@given(JSON)
def test_format_gives_compact_json_with_sorted_keys(value: object):
    [text] = pa.array(_engine.jsonb_format_json(jsonb(value))).to_pylist()
    assert json.loads(text) == value
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert len(text) <= len(compact) + 64 * compact.count("\\u") + 16 * compact.count("e")
    if isinstance(value, dict):
        assert list(json.loads(text)) == sorted(value, key=str.encode)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+1", 1),
        ("-0", 0),
        ("007", 7),
        ("-007.50", -7.5),
        ("0x1F", 31),
        ("-0xff", -255),
        ("0x1ffffffffffffffff", float(0x1FFFFFFFFFFFFFFFF)),
        (".5", 0.5),
        ("5.", 5.0),
        ("+.5e1", 5.0),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", float(2**64)),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -float(2**63)),
        ("1e400", math.inf),
        ("-Infinity", -math.inf),
        ("[]", []),
        ("[,]", [None, None]),
        ("[1,,2]", [1, None, 2]),
        ("[1,]", [1, None]),
        ('{"a":1,"a":2}', {"a": 2}),
        (' \t\n{ "a" : [ true , false , null ] } \r', {"a": [True, False, None]}),
        (r'"\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\"', 'é😀/\b\f\n\r\t"\\'),
        ('"a\nb"', "a\nb"),
    ],
)
def test_lenient_grammar(text: str, value: object):
    assert parse(text) == [encode(value)]


def test_not_a_number_goes_there_and_back():
    column = _engine.jsonb_parse(pa.array(["NaN", "Infinity", "-Infinity"]))
    assert pa.array(_engine.jsonb_format_json(column)).to_pylist() == ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "nul",
            "truex",
            "1 2",
            "[1",
            "]",
            "{",
            '{"a"}',
            '{"a":1,}',
            "{a:1}",
            "{,}",
            "'a'",
            '"a',
            '"\\x"',
            '"\\u12"',
        ),
        *(
            '"\\u+123"',
            '"\\ud800"',
            '"\\udc00"',
            '"\\ud800\\u0041"',
            "+",
            "-",
            ".",
            "1e",
            "0x",
            "--1",
            "plain words",
            "[1 2]",
        ),
    ],
)
def test_what_is_no_json_gives_null(text: str):
    assert parse(text) == [None]


def test_deep_nesting_is_refused_without_harm():
    deep = 1_000_000
    assert parse("[" * deep, "[" * deep + "]" * deep, '{"a":' * deep) == [None, None, None]
    assert parse("[" * 100 + "]" * 100) != [None]


def test_parse_keeps_null_and_dictionary_rows():
    column = pa.array(["1", None, "x", "1"]).dictionary_encode()
    result = pa.array(_engine.jsonb_parse(column))
    assert result.type == DICT_JSONB
    assert result.to_pylist() == [encode(1), None, None, encode(1)]
    assert len(result.dictionary) == 1


@pytest.mark.parametrize(
    ("value", "text", "real", "whole"),
    [
        ("x", "x", None, None),
        ("", "", None, None),
        (3, None, 3.0, 3),
        (-3, None, -3.0, -3),
        (0, None, 0.0, 0),
        (3.0, None, 3.0, 3),
        (3.5, None, 3.5, None),
        (2**63 - 1, None, float(2**63), 2**63 - 1),
        (2**63, None, float(2**63), None),
        (-(2**63), None, -float(2**63), -(2**63)),
        (float(2**63), None, float(2**63), None),
        (-float(2**63), None, -float(2**63), -(2**63)),
        (math.inf, None, math.inf, None),
        (True, None, None, None),
        (None, None, None, None),
        ([1], None, None, None),
        ({"a": 1}, None, None, None),
    ],
)
def test_casts(value: object, text: str | None, real: float | None, whole: int | None):
    column = jsonb(value)
    assert pa.array(_engine.jsonb_as_string(column)).to_pylist() == [text]
    assert pa.array(_engine.jsonb_as_f64(column)).to_pylist() == [real]
    assert pa.array(_engine.jsonb_as_i64(column)).to_pylist() == [whole]


def test_casts_of_nan():
    column = jsonb(math.nan)
    [real] = pa.array(_engine.jsonb_as_f64(column)).to_pylist()
    assert math.isnan(real)
    assert pa.array(_engine.jsonb_as_i64(column)).to_pylist() == [None]


@given(st.dictionaries(TEXT, JSON, max_size=5), TEXT)
def test_get(members: dict[str, object], other: str):
    for key in [*members, other]:
        [found] = pa.array(_engine.jsonb_get(jsonb(members), pa.array([key]))).to_pylist()
        if key in members:
            assert found == encode(members[key])
        elif not any(member.lower() == key.lower() for member in members):
            assert found is None


def test_get_prefers_the_exact_key_and_folds_ascii_only():
    column = jsonb({"KEY": 1, "Key": 2, "É": 3}, {"kEy": 4}, [1], "key")
    names = pa.array(["Key"] * 4)
    assert pa.array(_engine.jsonb_get(column, names)).to_pylist() == [encode(2), encode(4), None, None]
    assert pa.array(_engine.jsonb_get(jsonb({"KEY": 1, "Key": 2}), pa.array(["key"]))).to_pylist() == [encode(1)]
    assert pa.array(_engine.jsonb_get(jsonb({"É": 3}), pa.array(["é"]))).to_pylist() == [None]


@given(JSON)
def test_keys_and_lengths(value: object):
    column = jsonb(value)
    keys = sorted(value, key=str.encode) if isinstance(value, dict) else None
    found = pa.array(_engine.jsonb_object_keys(column))
    assert found.type == pa.dictionary(pa.int32(), pa.list_(pa.utf8()))
    assert found.to_pylist() == [keys]
    length = len(value) if isinstance(value, list) else None
    assert pa.array(_engine.jsonb_array_length(column)).to_pylist() == [length]


READERS = [
    _engine.jsonb_format_json,
    _engine.jsonb_as_string,
    _engine.jsonb_as_f64,
    _engine.jsonb_as_i64,
    _engine.jsonb_object_keys,
    _engine.jsonb_array_length,
    _engine.properties_length,
    lambda column: _engine.jsonb_get(column, pa.array(["a"])),
    lambda column: _engine.property_get(column, pa.array(["a"])),
]


def check_reads_or_refuses(raw: bytes) -> None:
    for reader in READERS:
        refusal = None
        rows = 0
        try:
            rows = len(reader(pa.array([raw], pa.binary())))
        except ValueError as error:
            refusal = str(error)
        assert rows == 1 if refusal is None else refusal.startswith("row 0: jsonb: ")


@given(JSON.map(encode), st.data())
def test_damaged_bytes_give_a_value_or_an_error(good: bytes, data: st.DataObject):
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    check_reads_or_refuses(bad)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_an_error(raw: bytes):
    check_reads_or_refuses(raw)


def test_an_object_that_contains_itself_by_length_is_refused():
    inner = bytes.fromhex("80000001 5000000f")
    with pytest.raises(ValueError, match="jsonb"):
        _engine.jsonb_format_json(pa.array([inner * 500], pa.binary()))


def test_bytes_nested_too_deep_are_refused():
    nested = encode(1)
    for _ in range(5000):
        nested = (0x80000001).to_bytes(4, "big") + (5 << 28 | len(nested)).to_bytes(4, "big") + nested
    with pytest.raises(ValueError, match=r"nested too deep|scalar"):
        _engine.jsonb_format_json(pa.array([nested], pa.binary()))


def test_values_of_a_dictionary_that_no_row_uses_are_not_read():
    values = pa.array([b"broken", encode("a")], pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array([1, None, 1], pa.int32()), values)
    assert pa.array(_engine.jsonb_as_string(column)).to_pylist() == ["a", None, "a"]


@pytest.mark.parametrize("index_type", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32()])
@pytest.mark.parametrize("value_type", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_layouts(index_type: pa.DataType, value_type: pa.DataType):
    values = pa.array([encode("a"), None, encode("b")], value_type)
    column = pa.DictionaryArray.from_arrays(pa.array([2, 0, 1, None, 2], index_type), values)
    for view in (column, column.slice(1, 3)):
        expected = [None if raw is None else raw[8:].decode() for raw in view.to_pylist()]
        assert pa.array(_engine.jsonb_as_string(view)).to_pylist() == expected
    assert pa.array(_engine.jsonb_as_string(values.slice(1))).to_pylist() == [None, "b"]


def test_empty_and_all_null_columns():
    empty = pa.array([], DICT_JSONB)
    nulls = pa.array([None, None], DICT_JSONB)
    for column, expected in ((empty, []), (nulls, [None, None]), (pa.nulls(2), [None, None])):
        result = pa.array(_engine.jsonb_format_json(column))
        assert result.type == DICT_TEXT
        assert result.to_pylist() == expected
        assert pa.array(_engine.jsonb_object_keys(column)).to_pylist() == expected


def test_wrong_arguments():
    with pytest.raises(ValueError, match="argument 1: type Int64 is neither text nor binary"):
        _engine.jsonb_as_f64(pa.array([1]))
    with pytest.raises(TypeError, match="list has no __arrow_c_array__"):
        _engine.jsonb_as_f64([b"x"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="columns of 1 and 2 rows"):
        _engine.jsonb_get(jsonb({}), pa.array(["a", "b"]))


def test_a_text_of_too_many_values_is_no_null() -> None:
    """Of sixteen megabytes, as a line of a log may have them: all its values at once would be a gigabyte."""
    with pytest.raises(ValueError, match="row 1: json: a text of 16777218 bytes holds more than 16777216 values"):
        _engine.jsonb_parse(pa.array(["[,]", f"[{',' * (1 << 24)}]"], pa.utf8()))
    assert parse("," * (1 << 24)) == [None]
