"""The histogram kernels against the plain Python ones: the same bits."""

from __future__ import annotations

import math
import struct

import pyarrow as pa
import pytest
from engine.histogram_reference import LARGEST, Histogram, histogram, total
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine

BINS = pa.list_(pa.field("bin", pa.uint64(), nullable=False))
HISTOGRAM = pa.struct(
    [pa.field(name, pa.float64(), nullable=False) for name in ("start", "end", "min", "max", "sum", "sum_sq")]
    + [pa.field("count", pa.uint64(), nullable=False), pa.field("bins", BINS, nullable=False)]
)
LIST = pa.list_(pa.float64())

FINITE = st.floats(allow_nan=False, allow_infinity=False)
BOUNDS = st.one_of(
    st.tuples(FINITE, FINITE), st.tuples(st.integers(-50, 50).map(float), st.integers(-50, 50).map(float))
).map(lambda pair: (min(pair), max(pair)))
VALUES = st.lists(st.none() | st.floats() | st.integers(-60, 60).map(float), max_size=30)
CASE = st.tuples(BOUNDS, st.integers(1, 40), st.none() | VALUES)


def bits(value: object) -> object:
    """Comparable form of rows in which a double equals only itself; all NaNs are one."""
    if isinstance(value, dict):
        return {name: bits(each) for name, each in value.items()}
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    return value


def make(start: list, end: list, bins: list, values: list) -> pa.Array:
    columns = (
        pa.array(start, pa.float64()),
        pa.array(end, pa.float64()),
        pa.array(bins, pa.int64()),
        pa.array(values, LIST),
    )
    return pa.array(_engine.histogram_of_list(*columns))


def column(histograms: list[Histogram | None]) -> pa.Array:
    return pa.array([None if each is None else each.row() for each in histograms], HISTOGRAM)


@given(st.lists(CASE, max_size=6))
def test_histogram_of_list(cases: list):
    result = make(
        [bounds[0] for bounds, _, _ in cases],
        [bounds[1] for bounds, _, _ in cases],
        [bins for _, bins, _ in cases],
        [values for _, _, values in cases],
    )
    assert result.type == HISTOGRAM
    expected = [histogram(*bounds, bins, values or []).row() for bounds, bins, values in cases]
    assert list(map(bits, result.to_pylist())) == list(map(bits, expected))


@pytest.mark.parametrize(
    ("value", "bin_index"),
    [
        (-1.0, 0),
        (-0.0, 0),
        (0.0, 0),
        (24.999, 0),
        (25.0, 1),
        (99.99, 3),
        (100.0, 3),
        (1e300, 3),
        (math.inf, 3),
        (-math.inf, 0),
    ],
)
def test_edges(value: float, bin_index: int):
    [made] = make([0.0], [100.0], [4], [[value]]).to_pylist()
    assert made["bins"] == [int(index == bin_index) for index in range(4)]


def test_nan_counts_in_bin_zero_and_spoils_the_sums_only():
    [made] = make([0.0], [10.0], [2], [[7.0, math.nan, None]]).to_pylist()
    assert (made["count"], made["bins"], made["min"], made["max"]) == (2, [1, 1], 7.0, 7.0)
    assert math.isnan(made["sum"])
    assert math.isnan(made["sum_sq"])


def test_empty_histogram():
    for values in (None, [], [None]):
        [made] = make([0.0], [10.0], [2], [values]).to_pylist()
        assert made == Histogram(0.0, 10.0, [0, 0]).row()
        assert (made["min"], made["max"]) == (LARGEST, -LARGEST)


def test_a_range_without_width():
    [made] = make([5.0], [5.0], [3], [[4.0, 5.0, 6.0, math.nan]]).to_pylist()
    assert made["bins"] == [3, 0, 1]


@pytest.mark.parametrize(
    ("start", "end", "bins", "message"),
    [
        (None, 1.0, 1, "start is NULL"),
        (0.0, None, 1, "end is NULL"),
        (0.0, 1.0, None, "nb_bins is NULL"),
        (math.nan, 1.0, 1, "not both finite"),
        (0.0, math.inf, 1, "not both finite"),
        (1.0, 0.0, 1, "start 1.0 is above its end 0.0"),
        (0.0, 1.0, 0, "histogram of 0 bins"),
        (0.0, 1.0, -5, "histogram of -5 bins"),
        (0.0, 1.0, 2**62, "histogram of 4611686018427387904 bins"),
    ],
)
def test_wrong_bounds(start: float | None, end: float | None, bins: int | None, message: str):
    with pytest.raises(ValueError, match=message):
        make([start], [end], [bins], [[1.0]])


def test_many_histograms_take_bounded_memory():
    count = 1000
    with pytest.raises(ValueError, match="at most 67108864 fit a batch"):
        make([0.0] * count, [1.0] * count, [10_000_000] * count, [[]] * count)


def group(bounds: list, any_null: list, values: list) -> pa.Array:
    columns = [pa.array([row[index] for row in bounds], pa.float64()) for index in range(4)]
    columns += [pa.array([row[index] for row in bounds], pa.int64()) for index in (4, 5)]
    return pa.array(_engine.histogram_of_group(*columns, pa.array(any_null, pa.bool_()), pa.array(values, LIST)))


def test_histogram_of_group():
    bounds = [(0.0, 0.0, 10.0, 10.0, 2, 2), (None,) * 6, (0.0, 0.0, 1.0, 1.0, 1, 1)]
    result = group(bounds, [False, None, False], [[1.0, 9.0], None, None])
    assert result.type == HISTOGRAM
    expected = [histogram(0.0, 10.0, 2, [1.0, 9.0]).row(), None, histogram(0.0, 1.0, 1, []).row()]
    assert result.to_pylist() == expected


@pytest.mark.parametrize(
    ("row", "any_null", "message"),
    [
        ((0.0, 1.0, 10.0, 10.0, 2, 2), False, "change within a group"),
        ((0.0, 0.0, 10.0, 11.0, 2, 2), False, "change within a group"),
        ((0.0, 0.0, 10.0, 10.0, 2, 3), False, "change within a group"),
        ((math.nan, math.nan, 10.0, 10.0, 2, 2), False, "not both finite"),
        ((None, None, 10.0, 10.0, 2, 2), True, "bound is NULL"),
    ],
)
def test_wrong_bounds_of_a_group(row: tuple, any_null: bool, message: str):
    with pytest.raises(ValueError, match=message):
        group([row], [any_null], [[1.0]])


@given(BOUNDS, st.integers(1, 10), st.lists(st.lists(st.none() | VALUES, max_size=5), max_size=4))
def test_sum_of_histograms(bounds: tuple[float, float], bins: int, groups: list):
    made = [[None if values is None else histogram(*bounds, bins, values) for values in each] for each in groups]
    lists = pa.array([[each and each.row() for each in one] for one in made], pa.list_(HISTOGRAM))
    result = pa.array(_engine.sum_of_histograms(lists))
    assert result.type == HISTOGRAM
    expected = []
    for each in made:
        present = [one for one in each if one is not None]
        expected.append(total(present).row() if present else None)
    assert list(map(bits, result.to_pylist())) == list(map(bits, expected))
    sliced = pa.array(_engine.sum_of_histograms(lists.slice(1)))
    assert list(map(bits, sliced.to_pylist())) == list(map(bits, expected[1:]))


def test_sum_of_nothing_is_null():
    lists = pa.array([None, [], [None]], pa.list_(HISTOGRAM))
    assert pa.array(_engine.sum_of_histograms(lists)).to_pylist() == [None, None, None]


@pytest.mark.parametrize(
    "other", [histogram(1.0, 10.0, 2, []), histogram(0.0, 11.0, 2, []), histogram(0.0, 10.0, 3, [])]
)
def test_sum_of_unlike_histograms(other: Histogram):
    lists = pa.array([[histogram(0.0, 10.0, 2, []).row(), None, other.row()]], pa.list_(HISTOGRAM))
    with pytest.raises(ValueError, match="can't be summed"):
        _engine.sum_of_histograms(lists)


@given(st.lists(st.none() | CASE, max_size=5), st.floats() | st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_readers(cases: list, ratio: float):
    made = [case and histogram(*case[0], case[1], case[2] or []) for case in cases]
    histograms = column(made)
    ratios = pa.array([ratio] * len(made), pa.float64())
    results = {
        Histogram.quantile: pa.array(_engine.quantile_from_histogram(histograms, ratios)),
        Histogram.variance: pa.array(_engine.variance_from_histogram(histograms)),
    }
    for read, result in results.items():
        arguments = (ratio,) if read is Histogram.quantile else ()
        expected = [None if each is None else read(each, *arguments) for each in made]
        assert list(map(bits, result.to_pylist())) == list(map(bits, expected))
    counts = pa.array(_engine.count_from_histogram(histograms))
    assert counts.type == pa.uint64()
    assert counts.to_pylist() == [each and each.count for each in made]
    sums = pa.array(_engine.sum_from_histogram(histograms)).to_pylist()
    assert list(map(bits, sums)) == [bits(each and each.sum) for each in made]
    assert pa.array(_engine.count_from_histogram(histograms.slice(1))).to_pylist() == counts.to_pylist()[1:]


def test_quantile_interpolates_within_the_bin():
    made = column([histogram(0.0, 100.0, 4, [10.0, 30.0, 30.0, 80.0])])
    read = [
        pa.array(_engine.quantile_from_histogram(made, pa.array([ratio])))[0].as_py() for ratio in (0.0, 0.5, 1.0, 2.0)
    ]
    assert read == [0.0, 37.5, 100.0, 100.0]
    assert pa.array(_engine.quantile_from_histogram(made, pa.array([None], pa.float64()))).to_pylist() == [None]


def test_variance_of_one_value_is_nan():
    [read] = pa.array(_engine.variance_from_histogram(column([histogram(0.0, 1.0, 1, [0.3])]))).to_pylist()
    assert math.isnan(read)


def test_what_is_no_histogram():
    for other in (pa.array([1.0]), pa.array([{"start": 1.0}])):
        with pytest.raises(ValueError, match="is no histogram"):
            _engine.count_from_histogram(other)
