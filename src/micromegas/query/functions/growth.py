"""Functions of the engine whose result can be any number of times larger than their arguments, within a limit.

What they make is in no pool of memory, and of constants it is made while the statement is planned, under the
interpreter's lock. So a call that isn't small by its text gets an argument that a check of ours lets through. A check
counts as volatile: such a call is never run before the query is, and the check sees every row of a batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from micromegas.query.functions.scalar import Argument, ScalarFunction
from micromegas.query.functions.statement import Replacement, Value

DEFAULT_MAX_BYTES = 128 * 1024 * 1024
# A text of this many bytes in each row of a batch is within any sensible limit; so are the elements of a list.
_SMALL_TEXT = 2048
_SMALL_LIST = _SMALL_TEXT // 8
_SMALL_SERIES = 65536
_SMALL_REPLACEMENT = 64
_BYTES_OF_ELEMENT = 8

_NUMBER = re.compile(r"-?\d{1,9}")
_ARITHMETIC = re.compile(r"[-+*/()\d\s]+")


@dataclass(frozen=True, slots=True)
class _Growing:
    signature: str
    arguments: range
    """How many there may be."""
    is_checked: Callable[[Sequence[str]], bool]
    """Whether a call with these arguments needs a check."""
    sql: Callable[[Sequence[str]], list[str]]
    """The arguments with the check among them."""


def _number(text: str) -> float:
    """The number that a text is, without its sign; more than any if it is none."""
    return abs(int(text)) if _NUMBER.fullmatch(text) else math.inf


def _length(text: str) -> float:
    """The bytes of a literal at most; more than any if it is none."""
    is_literal = len(text) > 1 and text[0] == text[-1] == "'" and "'" not in text[1:-1]
    return len(text.encode()) - 2 if is_literal else math.inf


def _padding(name: str) -> _Growing:
    return _Growing(
        f"{name}(text, length[, fill])",
        range(2, 4),
        lambda texts: _number(texts[1]) > _SMALL_TEXT,
        lambda texts: [texts[0], f"padded_length({texts[1]})", *texts[2:]],
    )


def _repeated_element(name: str, arguments: range) -> _Growing:
    return _Growing(
        f"{name}(…, number[, element])",
        arguments,
        lambda texts: _number(texts[1]) > _SMALL_LIST,
        lambda texts: [texts[0], f"element_count({texts[1]})", *texts[2:]],
    )


def _series_arguments(texts: Sequence[str]) -> list[str]:
    if len(texts) == 1:
        return [f"series_end(0, {texts[0]}, 1)"]
    return [texts[0], f"series_end({texts[0]}, {texts[1]}, {texts[2] if len(texts) > 2 else 1})", *texts[2:]]


def _series(name: str) -> _Growing:
    """Of whole numbers that the text tells: of columns and times it does not tell the types."""
    return _Growing(
        f"{name}(begin[, end[, step]])",
        range(1, 4),
        lambda texts: all(map(_ARITHMETIC.fullmatch, texts)) and any(_number(text) > _SMALL_SERIES for text in texts),
        _series_arguments,
    )


_GROWING = {
    "lpad": _padding("lpad"),
    "rpad": _padding("rpad"),
    "repeat": _Growing(
        "repeat(text, count)",
        range(2, 3),
        lambda texts: not _length(texts[0]) * _number(texts[1]) <= _SMALL_TEXT,
        lambda texts: [f"repeated_text({texts[0]}, {texts[1]})", texts[1]],
    ),
    "replace": _Growing(
        "replace(text, from, to)",
        range(3, 4),
        lambda texts: _length(texts[2]) > _SMALL_REPLACEMENT,
        lambda texts: [f"replaceable_text({', '.join(texts)})", texts[1], texts[2]],
    ),
    "array_repeat": _repeated_element("array_repeat", range(2, 3)),
    "list_repeat": _repeated_element("list_repeat", range(2, 3)),
    "array_resize": _repeated_element("array_resize", range(2, 4)),
    "list_resize": _repeated_element("list_resize", range(2, 4)),
    "range": _series("range"),
    "generate_series": _series("generate_series"),
}
NAMES = frozenset(_GROWING)
"""The functions that are kept within the limit."""

WORDS = re.compile(rf"\b(?:{'|'.join(sorted(NAMES))})\b")
"""Finds any of them in a statement of lower case that has one."""


def limited(name: str, arguments: Sequence[str]) -> Replacement | None:
    """What becomes of a call; None where it stays as it is, because it is small or the planner refuses it anyway."""
    growing = _GROWING[name]
    if len(arguments) not in growing.arguments or not growing.is_checked(arguments):
        return None

    def sql(values: Sequence[Value], clauses: str) -> str:
        return f"{name}({', '.join(growing.sql([value.sql for value in values]))}){clauses}"

    return Replacement(growing.signature, len(arguments), sql)


def growth_checks(max_bytes: int = DEFAULT_MAX_BYTES) -> tuple[ScalarFunction, ...]:
    """The checks, for results of at most so many bytes in a batch of rows. An error when there are more."""

    def checked(what: str, sizes: Any) -> None:
        # as doubles, which do not overflow
        total = pc.sum(pc.max_element_wise(sizes, 0.0)).as_py() or 0.0
        if total > max_bytes:
            raise ValueError(f"Resources exhausted: {what} of {total:.0f} bytes in a batch, at most {max_bytes}")

    def doubles(numbers: pa.Array) -> pa.Array:
        return pc.cast(numbers, pa.float64(), safe=False)

    def padded_length(lengths: pa.Array) -> pa.Array:
        checked("padded texts", doubles(lengths))
        return lengths

    def repeated_text(texts: pa.Array, counts: pa.Array) -> pa.Array:
        checked("repeated texts", pc.multiply(doubles(pc.binary_length(texts)), doubles(counts)))
        return texts

    def replaceable_text(texts: pa.Array, old: pa.Array, new: pa.Array) -> pa.Array:
        lengths = [doubles(pc.binary_length(each)) for each in (texts, old, new)]
        # nothing replaces the empty text, which no row divides by
        places = pc.divide(lengths[0], pc.if_else(pc.equal(lengths[1], 0.0), math.inf, lengths[1]))
        checked("replaced texts", pc.multiply(places, lengths[2]))
        return texts

    def element_count(counts: pa.Array) -> pa.Array:
        checked("repeated elements", pc.multiply(doubles(counts), float(_BYTES_OF_ELEMENT)))
        return counts

    def series_end(begins: pa.Array, ends: pa.Array, steps: pa.Array) -> pa.Array:
        elements = pc.divide(pc.subtract(doubles(ends), doubles(begins)), doubles(steps))
        checked("series", pc.multiply(elements, float(_BYTES_OF_ELEMENT)))
        return ends

    text, number = pa.utf8(), pa.int64()
    checks = (
        (padded_length, {"length": number}, number),
        (repeated_text, {"text": text, "count": number}, text),
        (replaceable_text, {"text": text, "from": text, "to": text}, text),
        (element_count, {"count": number}, number),
        (series_end, {"begin": number, "end": number, "step": number}, number),
    )
    return tuple(
        ScalarFunction(
            check.__name__,
            tuple(Argument(name, of_type) for name, of_type in arguments.items()),
            returns,
            check,
            "An argument as it is. An error where what is made of it would be larger than the limit.",
            volatility="volatile",
        )
        for check, arguments, returns in checks
    )
