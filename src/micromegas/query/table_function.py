"""What stands in FROM with arguments: `name(constant, …)`. A table function only says which table its arguments name.

It is called while the engine plans, on the engine's own threads: it must touch neither the engine nor the lake. What
costs time belongs into `QueryTable.files` of the table it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyarrow as pa

from micromegas.query.errors import QueryError
from micromegas.query.tables import QueryTable
from micromegas.wire import rfc3339_ns


class ParameterKind(Enum):
    """What an argument must be; the value says it in error texts."""

    TEXT = "a text"
    INTEGER = "an integer"
    NUMBER = "a number"
    TIME = "a time (a timestamp, or an RFC 3339 text)"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a table function; an argument of its kind becomes a `str`, an `int`, a `float`, or for times an
    `int` of ns since the epoch (a timestamp without a time zone counts as UTC)."""

    name: str
    kind: ParameterKind = ParameterKind.TEXT


class TableFunction(ABC):
    """A function that names a table by constants. Thread-safe: holds no state of a statement.

    `schemas` are all that its tables may have, by identity. One `for_administrators` exists only in their statements.
    `description` and `example` (a statement) are what docs/functions.md shows; tools/functions_page.py writes it.
    """

    name: str
    for_administrators: bool = False
    parameters: tuple[Parameter, ...] = ()
    schemas: Sequence[pa.Schema]
    description: str
    example: str

    @abstractmethod
    def table(self, *arguments: Any, **_: Any) -> QueryTable:
        """The table for checked arguments, one per parameter. Raises `QueryError` where they can't name one."""

    @property
    def signature(self) -> str:
        """`name(parameter, …)` as users write it."""
        return f"{self.name}({', '.join(parameter.name for parameter in self.parameters)})"

    def table_of(self, expressions: Sequence[Any]) -> QueryTable:
        """The table for the expressions that the planner hands over. Raises `QueryError`."""
        if len(expressions) != len(self.parameters):
            raise QueryError(
                "invalid", f"{self.signature}: {len(expressions)} arguments given, {len(self.parameters)} expected"
            )
        pairs = zip(self.parameters, expressions, strict=True)
        return self.table(*(self._argument(parameter, expression) for parameter, expression in pairs))

    def _argument(self, parameter: Parameter, expression: Any) -> str | int | float:
        if expression.variant_name() != "Literal":
            raise QueryError(
                "invalid",
                f"{self.signature}: {parameter.name} must be a constant: columns, subqueries and parameters "
                "don't reach a table function",
            )
        value = _value(parameter.kind, expression.python_value())
        if value is None:
            raise QueryError("invalid", f"{self.signature}: {parameter.name} must be {parameter.kind.value}")
        return value


def _value(kind: ParameterKind, literal: Any) -> str | int | float | None:
    """The value of a literal, None where it isn't of the kind."""
    if isinstance(literal, pa.DictionaryScalar):
        literal = literal.value
    if kind is ParameterKind.TIME and isinstance(literal, pa.TimestampScalar):
        return _timestamp_ns(literal)
    value = literal.as_py() if isinstance(literal, pa.Scalar) and not pa.types.is_temporal(literal.type) else literal
    if isinstance(value, bool):
        return None
    match kind:
        case ParameterKind.TEXT:
            return value if isinstance(value, str) else None
        case ParameterKind.INTEGER:
            return value if isinstance(value, int) else None
        case ParameterKind.NUMBER:
            return float(value) if isinstance(value, int | float) else None
        case ParameterKind.TIME:
            return _of_text(value) if isinstance(value, str) else None


def _timestamp_ns(literal: pa.TimestampScalar) -> int | None:
    try:
        value: int | None = literal.cast(pa.timestamp("ns", literal.type.tz)).value
    except pa.ArrowInvalid:
        return None
    return value


def _of_text(text: str) -> int | None:
    try:
        return rfc3339_ns(text)
    except ValueError:
        return None
