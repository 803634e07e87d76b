"""Lines drawn in Braille dots, read back dot by dot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from micromegas.cli.chart import _DOTS, drawn, framed

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def dots(lines: list[str], columns: int) -> list[list[int]]:
    """The heights of the dots of each value's column, from the top."""
    return [
        [
            row * 4 + dot
            for row, line in enumerate(lines)
            for dot in range(4)
            if (ord(line[x // 2]) - 0x2800) & _DOTS[dot][x % 2]
        ]
        for x in range(columns)
    ]


@given(st.lists(st.none() | NUMBERS, min_size=1, max_size=40).filter(any), st.integers(1, 12))
def test_every_value_is_drawn_and_gaps_stay_empty(values: list[float | None], height: int) -> None:
    columns = dots(drawn(values, height), len(values))
    known = [value for value in values if value is not None]
    assert [not column for column in columns] == [value is None for value in values]
    if max(known) > min(known):
        assert 0 in columns[values.index(max(known))]
        assert height * 4 - 1 in columns[values.index(min(known))]


def test_a_value_is_joined_with_the_one_before() -> None:
    assert dots(drawn([0, 3, 0], 1), 3) == [[3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert dots(drawn([0, None, 3], 1), 3) == [[3], [], [0]]


def test_the_largest_numbers_there_are_have_their_places() -> None:
    assert dots(drawn([1.7e308, -1.7e308], 1), 2) == [[0], [0, 1, 2, 3]]


def test_what_never_changes_runs_through_the_middle() -> None:
    assert drawn([5.0] * 4, 2) == ["⠀⠀", "⠉⠉"]


def test_the_frame_tells_the_extremes() -> None:
    assert framed([1, 2.5, 1, 1], 2, "ms") == [
        "2.5 ms │⢸⡇",
        "     1 │⣸⣇",
        "       └──",
    ]
