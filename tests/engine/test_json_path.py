"""JSON paths: against the standard's meaning in Python, over damaged documents, and over paths that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from engine import json_path_reference as reference
from engine.jsonb_reference import encode
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine

KEYS = st.sampled_from(["a", "b", "A", "a b", "é", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**63 - 1, -(2**63), 2**64 - 1, 0.5, -1.5, 1e300, 9.007199254740993e15])
    | st.sampled_from(["", "a", "ab", "b", "é"])
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15
)
INDEXES = st.integers(-4, 4)
PLAIN_STEPS = (
    st.builds(reference.Member, KEYS)
    | st.builds(reference.Members)
    | st.builds(reference.Elements)
    | st.builds(reference.Subscripts, st.lists(st.tuples(INDEXES, INDEXES), min_size=1, max_size=2).map(tuple))
)


def conditions(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    paths = st.builds(reference.Path, st.sampled_from("@@@$"), st.lists(steps, max_size=2).map(tuple))
    operands = paths | st.builds(reference.Literal, SCALARS)
    simple = (
        st.builds(reference.Compare, operands, st.sampled_from(list(reference.COMPARISONS)), operands)
        | st.builds(reference.StartsWith, operands, st.sampled_from(["", "a", "é"]))
        | st.builds(reference.Exists, paths)
    )
    return st.recursive(
        simple,
        lambda inner: (
            st.builds(
                reference.Combined, st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=3).map(tuple)
            )
            | st.builds(reference.Not, inner)
            | st.builds(reference.IsUnknown, inner)
        ),
        max_leaves=4,
    )


STEPS = PLAIN_STEPS | st.builds(reference.Filter, conditions(PLAIN_STEPS))
STEPS_OF_STEPS = PLAIN_STEPS | st.builds(reference.Filter, conditions(STEPS))
PATHS = st.builds(reference.Path, st.just("$"), st.lists(STEPS_OF_STEPS, max_size=4).map(tuple))


def query(documents: pa.Array, path: str) -> list[bytes | None]:
    return pa.array(_engine.jsonb_path_query(documents, pa.array([path] * len(documents), pa.utf8()))).to_pylist()


def first(documents: pa.Array, path: str) -> list[bytes | None]:
    return pa.array(_engine.jsonb_path_query_first(documents, pa.array([path] * len(documents), pa.utf8()))).to_pylist()


def refusal(function: Callable[[pa.Array, str], list[bytes | None]], documents: pa.Array, path: str) -> str:
    """The text of the error, or one that says that there was none."""
    try:
        answers = function(documents, path)
    except ValueError as error:
        return str(error)
    assert len(answers) == len(documents)
    return "json path: answered"


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), PATHS)
def test_paths_against_the_reference(documents: list[Any], path: reference.Path) -> None:
    encoded = pa.array([encode(document) for document in documents], pa.binary())
    expected = [path.values(document, document) for document in documents]
    for column in (encoded, encoded.dictionary_encode(), encoded.cast(pa.binary_view())):
        assert query(column, path.text()) == [encode(found) for found in expected]
        assert first(column, path.text()) == [encode(found[0]) if found else None for found in expected]


@given(DOCUMENTS, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4), PATHS)
def test_a_damaged_document_is_an_error_or_an_answer(
    document: Any, flips: list[tuple[int, int]], path: reference.Path
) -> None:
    damaged = bytearray(encode(document))
    for place, flip in flips:
        damaged[place % len(damaged)] ^= flip
    column = pa.array([bytes(damaged), bytes(damaged[: flips[0][0] % len(damaged)])], pa.binary())
    for function in (query, first):
        assert "json" in refusal(function, column, path.text())


@given(st.text(alphabet='$@.*[]()?!&|=<>"abexists to last-01234567890, wh+Nn\\{}é', max_size=40))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    assert refusal(query, pa.array([encode({"a": [1, {"b": 2}]})], pa.binary()), text).startswith("json path: ")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "no \\$ where it should begin at byte 0"),
        ("a", "no \\$"),
        ("@", "no \\$"),
        ("strict $", "mode strict is not offered"),
        ("$.", "no name of a member"),
        ("$.1", "no name of a member"),
        ("$..a", "no name of a member"),
        ("$.**", "unexpected text at byte 3"),
        ("$.a.size()", "methods of items are not offered"),
        ("$[", "no index"),
        ("$[]", "no index"),
        ("$[-1]", "no index"),
        ("$[1.5]", "no , where one is expected"),
        ("$[last + 1]", "no , where"),
        ("$[99999999999999999999]", "no index"),
        ("$[*", "no \\] where"),
        ("$ a", "unexpected text at byte 2"),
        ("$ ? @.a == 1", "no \\( where"),
        ("$ ? (@.a)", "no comparison"),
        ("$ ? (@.a = 1)", "no comparison"),
        ("$ ? (@.a == )", "neither a path nor a scalar"),
        ("$ ? (@.a == [1])", "neither a path nor a scalar"),
        ("$ ? (@.a == 'x')", "neither a path nor a scalar"),
        ("$ ? (@.a like_regex \"x\")", "no comparison"),
        ("$ ? (@ starts \"x\")", "no `with` after `starts`"),
        ("$ ? ((@ == 1) is true)", "no `unknown` after `is`"),
        ("$ ? (!@.a == 1)", "no \\( where"),
        ('$."a', "no string"),
        ("$ ? (" * 1000, "nested too deep|neither"),
        ("$ ? " + "(" * 100_000, "nested too deep"),
    ],
)  # fmt: skip
def test_malformed_paths_are_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"json path: .*({message})"):
        query(pa.array([encode([1])], pa.binary()), path)


def test_nulls_slices_and_a_path_per_row() -> None:
    documents = pa.array([encode({"a": 1}), None, encode({"a": 2, "b": 3}), encode([])], pa.binary())
    paths = pa.array(["$.a", "$.a", "$.b", None], pa.utf8())
    result = pa.array(_engine.jsonb_path_query_first(documents, paths))
    assert result.type == pa.dictionary(pa.int32(), pa.binary())
    assert result.to_pylist() == [encode(1), None, encode(3), None]
    sliced = pa.array(_engine.jsonb_path_query(documents.slice(2), paths.slice(2)))
    assert sliced.to_pylist() == [encode([3]), None]
    empty = pa.array(_engine.jsonb_path_query(documents.slice(4), paths.slice(4)))
    assert empty.to_pylist() == []
    with pytest.raises(ValueError, match="columns of 4 and 1 rows"):
        _engine.jsonb_path_query(documents, paths.slice(3))


def test_what_a_path_may_cost_is_bounded() -> None:
    document = pa.array([encode(["x" * 100_000])], pa.binary())
    with pytest.raises(ValueError, match="values to look at"):
        query(document, "$" + "[0, 0, 0, 0]" * 100)
    with pytest.raises(ValueError, match="at most 268435455 fit"):
        query(document, f"$[{', '.join(['0'] * 3000)}]")
    many = pa.array([encode(list(range(3000)))], pa.binary())
    with pytest.raises(ValueError, match="values to look at"):
        query(many, "$[*] ? ($[*] == -1)")


def test_what_the_rows_of_a_batch_may_make_of_their_documents_is_bounded() -> None:
    documents = pa.array([encode([f"{number:02}" + "x" * 300]) for number in range(40)], pa.binary())
    path = "$" + "[0, 0, 0, 0]" * 7
    assert len(query(documents[:20], path)) == 20
    with pytest.raises(ValueError, match=r"row 26: the results of a batch exceed 1342\d{5} bytes"):
        query(documents, path)
    # many rows of one document make one result
    assert len(set(query(pa.array([encode(["x" * 300])] * 40, pa.binary()).dictionary_encode(), path))) == 1
    one = pa.array([encode(["x" * 20_000_000])], pa.binary())
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 5, pa.int32()), one)
    paths = pa.array([f"$[{', '.join(['0'] * count)}]" for count in range(1, 6)], pa.utf8())
    with pytest.raises(ValueError, match="row 3: the results of a batch exceed 1542"):
        _engine.jsonb_path_query(rows, paths)
