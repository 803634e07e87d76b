"""A statement that only reads, compiled once for as many runs as there will be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Its text in a dialect, and the values of its parameters but for those that each run gives."""

    text: str
    positions: Sequence[str] | None
    constants: Mapping[str, Any]


class PreparedRead:
    """A SELECT whose values are all bound, those that differ from run to run by name and with their type. Thread-safe.

    Values are the driver's own in both directions: see `driver_columns`.
    """

    def __init__(self, statement: sa.Select[*tuple[Any, ...]]) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def for_dialect(self, dialect: sa.Dialect, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Text and parameters as the driver takes them."""
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            made = self._statement.compile(dialect=dialect)
            compiled = self._compiled[dialect.name] = _Compiled(str(made), made.positiontup, made.params)
        parameters = {**compiled.constants, **values}
        if compiled.positions is None:
            return compiled.text, parameters
        return compiled.text, [parameters[name] for name in compiled.positions]


def driver_columns(columns: Iterable[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
    """The columns such that every driver gives the same values for them: ids as texts."""
    return [sa.cast(each, sa.Text).label(each.name) if each.name.endswith("_id") else each for each in columns]
