"""Kernels over columns of views: what a dictionary or a plain column is cast to on its way into a function."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest
from engine.jsonb_reference import encode

from micromegas import _engine

VALUES = [{"a": "1"}, {"a": "2", "b": "a text that is longer than twelve bytes"}, {}, {"A": "3"}, None]


def column(random: Random, rows: int) -> pa.Array:
    picked = [random.choice(VALUES) for _ in range(rows)]
    return pa.array([None if value is None else encode(value) for value in picked], pa.binary())


@pytest.mark.parametrize("seed", range(5))
def test_views_give_what_plain_columns_give(seed: int) -> None:
    random = Random(seed)
    plain = column(random, 200)
    keys = pa.array([random.choice(["a", "b", "", None]) for _ in range(200)], pa.string())
    shared = pa.concat_arrays([plain.cast(pa.binary_view()), plain.cast(pa.binary_view())])
    for views, expected, names in (
        (plain.cast(pa.binary_view()), plain, keys),
        (shared, pa.concat_arrays([plain, plain]), pa.concat_arrays([keys, keys])),
        (plain.cast(pa.binary_view()).slice(37, 100), plain.slice(37, 100), keys.slice(37, 100)),
    ):
        for kernel in (_engine.jsonb_format_json, _engine.properties_length, _engine.jsonb_object_keys):
            assert pa.array(kernel(views)).to_pylist() == pa.array(kernel(expected)).to_pylist()
        for kernel in (_engine.property_get, _engine.jsonb_get):
            assert pa.array(kernel(views, names)).to_pylist() == pa.array(kernel(expected, names)).to_pylist()
            as_views = names.cast(pa.string_view())
            assert pa.array(kernel(views, as_views)).to_pylist() == pa.array(kernel(expected, names)).to_pylist()


def test_a_null_is_never_taken_for_a_value_that_looks_like_it() -> None:
    """Under a NULL lies the view of an empty text, as a rule; and the other way round."""
    texts = pa.array([None, "", None, "", "1", None, "1"], pa.string_view())
    assert pa.array(_engine.jsonb_parse(texts)).is_valid().to_pylist() == [False] * 4 + [True, False, True]
    sets = pa.array([None, encode({}), encode({}), None], pa.binary_view())
    names = pa.array(["", "", None, ""], pa.string_view())
    assert pa.array(_engine.properties_length(sets)).to_pylist() == [None, 0, 0, None]
    assert pa.array(_engine.property_get(sets, names)).to_pylist() == [None] * 4
    member = pa.array([encode({"": "x"})] * 4, pa.binary_view())
    assert pa.array(_engine.property_get(member, names)).to_pylist() == ["x", "x", None, "x"]


def test_bytes_that_are_no_jsonb_are_still_told_of() -> None:
    with pytest.raises(ValueError, match="row 1"):
        _engine.jsonb_format_json(pa.array([encode({}), b"\xff\xff\xff\xff"], pa.binary_view()))
