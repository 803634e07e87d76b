"""SQL/JSON paths in lax mode over plain Python values, as the standard says: an AST with its text and its meaning."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Truth = bool | None
"""None is unknown."""

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def unwrapped(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Member:
    name: str

    def text(self) -> str:
        return f".{json.dumps(self.name)}" if not self.name.isidentifier() else f".{self.name}"

    def apply(self, value: Any, root: Any) -> list[Any]:
        return [each[self.name] for each in unwrapped(value) if isinstance(each, dict) and self.name in each]


@dataclass(frozen=True)
class Members:
    def text(self) -> str:
        return ".*"

    def apply(self, value: Any, root: Any) -> list[Any]:
        # keys of the binary form are sorted by their bytes
        objects = [each for each in unwrapped(value) if isinstance(each, dict)]
        return [each[key] for each in objects for key in sorted(each, key=str.encode)]


@dataclass(frozen=True)
class Elements:
    def text(self) -> str:
        return "[*]"

    def apply(self, value: Any, root: Any) -> list[Any]:
        return list(unwrapped(value))


@dataclass(frozen=True)
class Subscripts:
    """Pairs of (from, to); negative numbers count from the end, -1 is the last."""

    ranges: tuple[tuple[int, int], ...]

    def text(self) -> str:
        def place(index: int) -> str:
            return str(index) if index >= 0 else "last" if index == -1 else f"last - {-index - 1}"

        return f"[{', '.join(place(a) if a == b else f'{place(a)} to {place(b)}' for a, b in self.ranges)}]"

    def apply(self, value: Any, root: Any) -> list[Any]:
        items = unwrapped(value)
        absolute = [[index if index >= 0 else len(items) + index for index in pair] for pair in self.ranges]
        return [items[index] for a, b in absolute for index in range(max(a, 0), min(b, len(items) - 1) + 1)]


@dataclass(frozen=True)
class Filter:
    condition: Any

    def text(self) -> str:
        return f" ? ({self.condition.text()})"

    def apply(self, value: Any, root: Any) -> list[Any]:
        return [each for each in unwrapped(value) if self.condition.holds(each, root) is True]


@dataclass(frozen=True)
class Path:
    start: str
    steps: tuple[Any, ...]

    def text(self) -> str:
        return self.start + "".join(step.text() for step in self.steps)

    def values(self, current: Any, root: Any) -> list[Any]:
        found = [root if self.start == "$" else current]
        for step in self.steps:
            found = [each for value in found for each in step.apply(value, root)]
        return found


@dataclass(frozen=True)
class Literal:
    value: Any

    def text(self) -> str:
        return json.dumps(self.value)

    def values(self, current: Any, root: Any) -> list[Any]:
        return [self.value]


def scalars(operand: Path | Literal, current: Any, root: Any) -> list[Any]:
    return [each for value in operand.values(current, root) for each in unwrapped(value)]


def kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@dataclass(frozen=True)
class Compare:
    left: Path | Literal
    comparison: str
    right: Path | Literal

    def text(self) -> str:
        return f"{self.left.text()} {self.comparison} {self.right.text()}"

    def holds(self, current: Any, root: Any) -> Truth:
        found = [
            self._pair(one, other)
            for one in scalars(self.left, current, root)
            for other in scalars(self.right, current, root)
        ]
        return True if True in found else None if None in found else False

    def _pair(self, one: Any, other: Any) -> Truth:
        if isinstance(one, dict | list) or isinstance(other, dict | list):
            return None
        if one is None and other is None:
            return self.comparison in ("==", "<=", ">=")
        if one is None or other is None:
            return self.comparison in ("!=", "<>")
        if kind(one) != kind(other):
            return None
        if isinstance(one, str):
            one, other = one.encode(), other.encode()
        return COMPARISONS[self.comparison](one, other)


@dataclass(frozen=True)
class StartsWith:
    operand: Path | Literal
    start: str

    def text(self) -> str:
        return f"{self.operand.text()} starts with {json.dumps(self.start)}"

    def holds(self, current: Any, root: Any) -> Truth:
        found = [
            each.startswith(self.start) if isinstance(each, str) else None
            for each in scalars(self.operand, current, root)
        ]
        return True if True in found else None if None in found else False


@dataclass(frozen=True)
class Exists:
    path: Path

    def text(self) -> str:
        return f"exists ({self.path.text()})"

    def holds(self, current: Any, root: Any) -> Truth:
        return bool(self.path.values(current, root))


@dataclass(frozen=True)
class Combined:
    word: str
    parts: tuple[Any, ...]

    def text(self) -> str:
        return f" {self.word} ".join(f"({part.text()})" for part in self.parts)

    def holds(self, current: Any, root: Any) -> Truth:
        found = [part.holds(current, root) for part in self.parts]
        decisive = self.word == "||"
        return decisive if decisive in found else None if None in found else not decisive


@dataclass(frozen=True)
class Not:
    part: Any

    def text(self) -> str:
        return f"!({self.part.text()})"

    def holds(self, current: Any, root: Any) -> Truth:
        truth = self.part.holds(current, root)
        return None if truth is None else not truth


@dataclass(frozen=True)
class IsUnknown:
    part: Any

    def text(self) -> str:
        return f"({self.part.text()}) is unknown"

    def holds(self, current: Any, root: Any) -> Truth:
        return self.part.holds(current, root) is None
