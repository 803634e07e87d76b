"""A line over time, in the characters of a terminal: Braille patterns, of which each holds 2 x 4 dots."""

from __future__ import annotations

from collections.abc import Sequence

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800


def drawn(values: Sequence[float | None], height: int) -> list[str]:
    """Lines of text, `height` of them, two values a column; None leaves a gap. Needs one value that is there."""
    known = [value for value in values if value is not None]
    lowest, highest = min(known), max(known)
    # what never changes runs through the middle
    # in halves, because the distance of the largest numbers is none
    span = (highest / 2 - lowest / 2) or 1.0
    middle = 0 if highest > lowest else height * 2
    cells = [[_BLANK] * ((len(values) + 1) // 2) for _ in range(height)]
    before: int | None = None
    for x, value in enumerate(values):
        if value is None:
            before = None
            continue
        y = middle or round((highest / 2 - value / 2) / span * (height * 4 - 1))
        # joined with the value before, which is one step to the left
        for dot in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        before = y
    return ["".join(map(chr, row)) for row in cells]


def framed(values: Sequence[float | None], height: int, unit: str) -> list[str]:
    """The line with its largest and smallest value on the left."""
    known = [value for value in values if value is not None]
    labels = [""] * height
    labels[-1], labels[0] = _number(min(known)), f"{_number(max(known))} {unit}".rstrip()
    margin = max(map(len, labels))
    rows = [f"{label:>{margin}} │{row}" for label, row in zip(labels, drawn(values, height), strict=True)]
    return [*rows, f"{'':>{margin}} └{'─' * ((len(values) + 1) // 2)}"]


def _number(value: float) -> str:
    return f"{value:.6g}"
