"""Types on the wire: every value stays what it was, whatever slice, nesting, or null it comes in."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas.serve.edge_types import EdgeConverter, edge_schema, edge_type

WORDS = pa.array(["alpha", "béta ☃", "", "δ" * 50])


def dictionary(indices):
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), WORDS)


SOURCES = [
    pa.array(["a", None, "long enough for a view buffer"], pa.string_view()),
    pa.array([b"a", None, b"long enough for a view buffer"], pa.binary_view()),
    pa.array(["a", None, "c"], pa.large_string()),
    pa.array([b"a", None, b"c"], pa.large_binary()),
    dictionary([3, None, 1]),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int16()), pa.array([b"x", None])),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array([1.5, 2.5])),
    pa.DictionaryArray.from_arrays(pa.array([1, 1, 0], pa.uint8()), pa.array(["v", "w"], pa.string_view())),
    pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int32()), pa.array([["a"], ["b", None]])),
    pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["r", None])),
    pa.array([["a"], None, []], pa.large_list(pa.large_string())),
    pa.array([["a", None], None, ["b"]], pa.list_(pa.string_view())),
    pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.large_string(), 2)),
    pa.array([["a"], None, ["b"]], pa.list_view(pa.string())),
    pa.array([["a"], None, ["b"]], pa.large_list_view(pa.string())),
    pa.array([[("k", "v"), ("l", None)], None, []], pa.map_(pa.large_string(), pa.string_view())),
    pa.array(
        [{"a": "x", "b": 1}, None, {"a": None, "b": None}], pa.struct([("a", pa.large_string()), ("b", pa.int8())])
    ),
    pa.StructArray.from_arrays([dictionary([0, None, 2])], names=["d"], mask=pa.array([False, False, True])),
    pa.ListArray.from_arrays(pa.array([0, 2, 2, 3], pa.int32()), dictionary([1, None, 3])),
    pa.array([0, None, 7], pa.timestamp("us", tz="UTC")),
    pa.array([0, None, 7], pa.timestamp("s")),
    pa.array([0, None, 7], pa.timestamp("ms", tz="Europe/Paris")),
    pa.array([1, None, 3], pa.uint64()),
    pa.nulls(3),
]


def values(array):
    """Comparable values; ns timestamps as integers because Python's own times can't hold them."""
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ns", array.type.tz)).cast(pa.int64()).to_pylist()
    return array.to_pylist()


@pytest.mark.parametrize("source", SOURCES, ids=lambda array: str(array.type))
@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("window", [slice(0, 3), slice(1, 3), slice(2, 3), slice(1, 1)])
def test_values_stay(source, preserve, window):
    part = source.slice(window.start, window.stop - window.start)
    batch = pa.RecordBatch.from_arrays([part], names=["c"])
    converter = EdgeConverter(batch.schema, preserve)
    out = pa.Table.from_batches(list(converter.convert(batch)), converter.schema)
    out.validate(full=True)
    assert out.schema == edge_schema(batch.schema, preserve)
    assert values(out.column("c")) == values(pa.chunked_array([part]))


def forbidden(kind, preserve):
    if pa.types.is_dictionary(kind):
        return not preserve or forbidden(kind.value_type, preserve)
    bad = ("view", "large", "run_end", "UTC]", "timestamp[us", "timestamp[s", "timestamp[ms")
    return any(word in str(kind) for word in bad)


@pytest.mark.parametrize("source", SOURCES, ids=lambda array: str(array.type))
@pytest.mark.parametrize("preserve", [False, True])
def test_no_type_is_left_that_a_client_cannot_read(source, preserve):
    assert not forbidden(edge_type(source.type, preserve), preserve)


def test_utc_is_spelled_as_an_offset_and_nullability_is_kept():
    schema = pa.schema([pa.field("t", pa.timestamp("us", "UTC"), nullable=False), pa.field("d", dictionary([0]).type)])
    out = edge_schema(schema, False)
    assert out == pa.schema([pa.field("t", pa.timestamp("ns", "+00:00"), nullable=False), pa.field("d", pa.string())])


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(0, 3000), max_size=60), limit=st.integers(1, 4000), preserve=st.booleans())
def test_batches_are_cut_to_the_limit_and_nothing_is_lost(lengths, limit, preserve):
    texts = pa.array(["z" * length for length in lengths], pa.string())
    batch = pa.RecordBatch.from_arrays([texts, texts.dictionary_encode()], names=["plain", "dict"])
    converter = EdgeConverter(batch.schema, preserve, max_bytes=limit)
    parts = list(converter.convert(batch))
    for part in parts:
        data = part.column("plain").nbytes + (part.column("dict").indices if preserve else part.column("dict")).nbytes
        assert part.num_rows <= 1 or data <= limit + 64
    table = pa.Table.from_batches(parts, converter.schema)
    assert table.column("plain").to_pylist() == texts.to_pylist()
    assert table.column("dict").to_pylist() == texts.to_pylist()


def test_one_huge_value_repeated_is_cut_before_it_is_written_out():
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["h" * 1_000_000]))
    batch = pa.RecordBatch.from_arrays([huge], names=["h"])
    sizes = [part.nbytes for part in EdgeConverter(batch.schema, False).convert(batch)]
    assert max(sizes) < 2.2 * 1024 * 1024
    assert len(sizes) >= 500


def test_a_time_that_nanoseconds_cannot_hold_is_an_error_and_no_other_time():
    batch = pa.RecordBatch.from_arrays([pa.array([10**12], pa.timestamp("s"))], names=["t"])
    with pytest.raises(pa.ArrowInvalid):
        list(EdgeConverter(batch.schema, False).convert(batch))


def test_indices_of_every_width_are_hydrated():
    for width in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        array = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], width), WORDS.slice(0, 2))
        batch = pa.RecordBatch.from_arrays([array], names=["c"])
        (out,) = EdgeConverter(batch.schema, False).convert(batch)
        assert out.column(0).to_pylist() == ["béta ☃", None, "alpha"]
        assert pc.count(out.column(0)).as_py() == 2


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.large_string()])
def test_preserved_dictionaries_hold_each_value_once_and_no_more_than_is_used(kind):
    values = pa.array(["a", "b", "a", None, "b", *(f"unused {i}" for i in range(100))], kind)
    array = pa.DictionaryArray.from_arrays(pa.array([0, 2, 1, None, 3, 4], pa.int16()), values)
    batch = pa.RecordBatch.from_arrays([array], names=["c"])
    (out,) = EdgeConverter(batch.schema, True).convert(batch)
    assert out.column(0).to_pylist() == ["a", "a", "b", None, None, "b"]
    assert sorted(out.column(0).dictionary.to_pylist()) == ["a", "b"]
    assert out.schema.field("c").type == pa.dictionary(pa.int16(), pa.string())


def test_preserved_dictionaries_of_nothing():
    empty = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array(["x"]))
    nulls = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int32()), pa.array([], pa.string()))
    for array in (empty, nulls):
        batch = pa.RecordBatch.from_arrays([array], names=["c"])
        (out,) = EdgeConverter(batch.schema, True).convert(batch)
        assert out.column(0).to_pylist() == array.to_pylist()
        assert len(out.column(0).dictionary) == 0
