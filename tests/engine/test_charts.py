"""Functions for dashboards, against their formulas."""

from __future__ import annotations

import math
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas import _engine

NUMBERS = st.none() | st.floats()
SHARES = st.floats(0, 1)


def floats(values: list[float | None]) -> pa.Array:
    return pa.array(values, pa.float64())


def same(found: list[float | None], expected: list[float | None]) -> bool:
    return [repr(each) for each in found] == [repr(each) for each in expected]


def component(value: float) -> int:
    """0 to 255, rounded half up."""
    return 0 if math.isnan(value) else int(min(max(math.floor(min(max(value, 0.0), 1.0) * 255 + 0.5), 0), 255))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=8))
def test_rgba(rows: list[tuple[float | None, ...]]) -> None:
    columns = [floats([row[place] for row in rows]) for place in range(4)]
    found = pa.array(_engine.rgba(*columns))
    assert found.type == pa.uint32()
    packed = [int.from_bytes([component(each or 0.0) for each in row], "big") for row in rows]
    expected = [None if None in row else color for row, color in zip(rows, packed, strict=True)]
    assert found.to_pylist() == expected


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=8))
def test_lerp_and_unlerp(rows: list[tuple[float | None, ...]]) -> None:
    columns = [floats([row[place] for row in rows]) for place in range(3)]

    def divided(a: float, b: float) -> float:
        if b != 0 or math.isnan(a):
            return a / b if b != 0 else math.nan
        return math.nan if a == 0 else math.copysign(math.inf, a) * math.copysign(1.0, b)

    lerped = [None if None in row else row[0] + (row[1] - row[0]) * row[2] for row in rows]  # type: ignore[operator]
    shares = [None if None in row else divided(row[2] - row[0], row[1] - row[0]) for row in rows]  # type: ignore[operator]
    assert same(pa.array(_engine.lerp(*columns)).to_pylist(), lerped)
    assert same(pa.array(_engine.unlerp(*columns)).to_pylist(), shares)


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e3))
def test_bin_center(x: float, size: float) -> None:
    (found,) = pa.array(_engine.bin_center(floats([x]), floats([size]))).to_pylist()
    assert found == math.floor((x + size / 2) / size) * size


def test_bins_at_their_edges() -> None:
    found = pa.array(
        _engine.bin_center(floats([4.9, 5.0, -5.0, -5.1, None, 1.0]), floats([10.0] * 5 + [0.0]))
    ).to_pylist()
    assert found[:5] == [0.0, 10.0, 0.0, -10.0, None]
    assert math.isnan(found[5])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), SHARES)
def test_lerp_color(one: int, other: int, t: float) -> None:
    found = pa.array(_engine.lerp_color(pa.array([one, None]), pa.array([other, 1]), floats([t, t]))).to_pylist()
    pairs = zip(one.to_bytes(4, "big"), other.to_bytes(4, "big"), strict=True)
    assert found == [int.from_bytes([math.floor(a + (b - a) * t + 0.5) for a, b in pairs], "big"), None]


def test_what_is_no_color_is_refused() -> None:
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match=f"lerp_color: {wrong} is no colour"):
            _engine.lerp_color(pa.array([wrong]), pa.array([0]), floats([0.0]))


def colors(name: str, places: list[float | None], alpha: float = 1.0) -> list[int]:
    found = _engine.color_scale(
        pa.array([name] * len(places), pa.utf8()), floats(places), floats([alpha] * len(places))
    )
    return list(pa.array(found).to_pylist())


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        # the ends as they were published
        ("viridis", 0x440154FF, 0xFDE725FF),
        ("magma", 0x000004FF, 0xFCFDBFFF),
        ("plasma", 0x0D0887FF, 0xF0F921FF),
        ("inferno", 0x000004FF, 0xFCFFA4FF),
        ("cividis", 0x00224EFF, 0xFEE838FF),
        ("turbo", 0x30123BFF, 0x7A0403FF),
    ],
)
def test_color_scales(name: str, first: int, last: int) -> None:
    assert colors(name.upper(), [0.0, -1.0, math.nan, 1.0, math.inf, None]) == [first] * 3 + [last] * 2 + [None]
    assert [color & 0xFF for color in colors(name, [0.1, 0.9], 0.5)] == [128, 128]
    places = [place / 500 for place in range(501)]
    steps = [color.to_bytes(4, "big") for color in colors(name, places)]
    # no jumps, and no two neighbouring tenths alike
    jumps = [abs(a - b) for one, other in pairwise(steps) for a, b in zip(one, other, strict=True)]
    assert max(jumps) < 16
    assert len({steps[place] for place in range(0, 501, 50)}) == 11


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match='unknown scale "jet", known are viridis, magma'):
        colors("jet", [0.0])
    names = pa.array([None, "turbo"], pa.utf8())
    assert pa.array(_engine.color_scale(names, floats([0.0, 0.0]), floats([1.0, 1.0]))).to_pylist() == [
        None,
        0x30123BFF,
    ]
