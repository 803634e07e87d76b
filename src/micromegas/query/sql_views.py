"""Views defined by SQL, made usable: each definition is checked against the tables it reads, before any query does.

A wrong definition must never hide the others, nor end the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from datafusion import DataFrame

from micromegas.query.errors import QueryError, classified
from micromegas.query.guard import function_names
from micromegas.query.reduced_view import merged, transformed
from micromegas.query.session import Sessions
from micromegas.query.stream import portable_schema
from micromegas.query.tables import QueryTable
from micromegas.views.arrow_types import TIMESTAMP, canonical_type
from micromegas.views.sql_definition import PARTS, SqlDefinition, SqlText, ViewProblem
from micromegas.views.view_set import ReducedBy, ViewSet

# As the engine words it, in each release anew: a contract test holds it.
UNKNOWN_TABLE = re.compile(r"table 'datafusion\.public\.(?P<name>.*?)' not found")

_SCAN = re.compile(r"^\s*TableScan: (\w+)", re.MULTILINE)
_LIMIT = re.compile(r"^\s*Limit:", re.MULTILINE)
_OF_THE_MOMENT = frozenset(
    ["now", "today", "current_date", "current_time", "current_timestamp", "random", "rand", "uuid"]
)
"""Functions that may give something else for the same rows."""


@dataclass(frozen=True, slots=True)
class CheckedView:
    """A view that can be used, and the names of the views that its transform reads."""

    view_set: ViewSet
    source_names: tuple[str, ...]


class _Refused(Exception):
    """Why a definition can't be used, and the line to look at."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class ViewChecks:
    """Checks definitions by planning them over placeholders of the tables they read."""

    def __init__(self, sessions: Sessions, tables: Mapping[str, QueryTable], taken_names: Collection[str]) -> None:
        self._sessions = sessions
        self._taken_names = taken_names
        self._frames: dict[str, DataFrame] = {}
        self._sources = {name: table for name, table in tables.items() if table.by_insert_time}
        self._other_tables = [name for name, table in tables.items() if not table.by_insert_time]
        self._hashes: dict[str, bytes] = {}
        for name, table in self._sources.items():
            self._frames[name] = self._empty(name, table.schema)

    def checked(self, definitions: Sequence[SqlDefinition]) -> tuple[list[CheckedView], list[ViewProblem]]:
        """The usable ones, each after those that it reads, and what is wrong with the others."""
        views: list[CheckedView] = []
        problems: list[ViewProblem] = []
        pending: dict[str, SqlDefinition] = {}
        for definition in definitions:
            if definition.name in self._taken_names or definition.name == PARTS:
                problems.append(definition.problem("the name belongs to the product"))
            else:
                pending[definition.name] = definition
        waits_for: dict[str, tuple[str, int]] = {}
        progress = True
        while pending and progress:
            progress = False
            for name, definition in list(pending.items()):
                try:
                    view = self._check(definition)
                except _Refused as refused:
                    unknown = UNKNOWN_TABLE.search(refused.message)
                    if unknown is not None and unknown["name"] in pending:
                        waits_for[name] = (unknown["name"], refused.line)
                        continue
                    problems.append(definition.problem(self._explained(refused.message, definitions), refused.line))
                else:
                    views.append(view)
                    self._frames[name] = self._empty(name, view.view_set.schema)
                    self._hashes[name] = view.view_set.schema_hash
                del pending[name]
                progress = True
        problems += [_circular(definition, waits_for) for definition in pending.values()]
        return views, problems

    def _check(self, definition: SqlDefinition) -> CheckedView:
        frame, scanned = self._planned(
            definition.transform, lambda: transformed(self._sessions.derive(), definition, self._frames)
        )
        sources = sorted(name for name in self._frames if name in scanned)
        if not sources:
            raise _Refused("transform: it reads no view", definition.transform.line)
        schema = self._schema(definition, frame)
        parts = self._empty(PARTS, schema)
        frame, scanned = self._planned(definition.merge, lambda: merged(self._sessions.derive(), definition, parts))
        if PARTS not in scanned:
            raise _Refused(f"merge: it does not read {PARTS}", definition.merge.line)
        _check_columns(schema, frame, definition.merge.line)
        hashes = tuple(self._hashes[name] for name in sources if name in self._hashes)
        view_set = ViewSet(
            name=definition.name,
            schema=schema,
            min_column=definition.min_column,
            max_column=definition.max_column,
            has_global=True,
            reduced=ReducedBy(definition, hashes),
        )
        return CheckedView(view_set, tuple(sources))

    def _planned(self, statement: SqlText, plan: Callable[[], DataFrame]) -> tuple[DataFrame, set[str]]:
        """The plan of a statement, and the tables that it names."""
        for name in function_names(statement.text):
            if name in _OF_THE_MOMENT:
                raise _Refused(f"{name}: what it gives changes by the moment, and partitions are kept", statement.line)
        try:
            frame = plan()
            shown = frame.logical_plan().display_indent()
            frame.optimized_logical_plan()
        except QueryError as error:
            raise _Refused(error.message, statement.line) from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Panics of the engine derive from BaseException.
            raise _Refused(classified(error).message, statement.line) from None
        if _LIMIT.search(shown):
            raise _Refused("LIMIT: which rows it leaves depends on how partitions are cut", statement.line)
        return frame, set(_SCAN.findall(shown))

    def _schema(self, definition: SqlDefinition, frame: DataFrame) -> pa.Schema:
        """The columns of the view: what the transform gives, NULLs allowed, as the merge may bring them."""
        given = portable_schema(frame.schema())
        line = definition.transform.line
        if len(set(given.names)) < len(given.names):
            raise _Refused("transform: two columns have one name", line)
        for field in given:
            try:
                canonical_type(field.type)
            except TypeError:
                message = f"transform: column {field.name}: a view can't keep the type {field.type}; cast it"
                raise _Refused(message, line) from None
        for name in dict.fromkeys([definition.min_column, definition.max_column]):
            if name not in given.names:
                raise _Refused(f"transform: it gives no column {name}, which -- @time names", line)
            if given.field(name).type != TIMESTAMP:
                raise _Refused(
                    f"transform: column {name}, which -- @time names, has the type {given.field(name).type}; "
                    "cast it to TIMESTAMP WITH TIME ZONE",
                    line,
                )
        return pa.schema([field.with_nullable(True).remove_metadata() for field in given])

    def _explained(self, message: str, definitions: Sequence[SqlDefinition]) -> str:
        unknown = UNKNOWN_TABLE.search(message)
        if unknown is None:
            return message
        name = unknown["name"]
        if name in self._other_tables:
            return (
                f"{name} can't be reduced: its rows have no insert time, so that none could be counted once; "
                "blocks has its columns"
            )
        if any(definition.name == name for definition in definitions):
            return f"it reads {name}, which can't be used either"
        return f"it reads {name}, which is no view"

    def _empty(self, name: str, schema: pa.Schema) -> DataFrame:
        return self._sessions.derive().from_arrow(schema.empty_table(), name)


def _check_columns(schema: pa.Schema, merge: DataFrame, line: int) -> None:
    """The merge must give what the transform gives, so that it can be merged again."""
    given = portable_schema(merge.schema())
    if given.names != schema.names:
        raise _Refused(
            f"merge: its columns are {', '.join(given.names)}, those of the transform {', '.join(schema.names)}", line
        )
    for own, field in zip(given, schema, strict=True):
        if own.type != field.type:
            raise _Refused(
                f"merge: column {field.name} has the type {own.type}, in the transform {field.type}; cast it", line
            )


def _circular(definition: SqlDefinition, waits_for: Mapping[str, tuple[str, int]]) -> ViewProblem:
    """Names the circle that a definition lies on or leads to."""
    way = [definition.name]
    while way[-1] not in way[:-1]:
        way.append(waits_for[way[-1]][0])
    circle = way[way.index(way[-1]) :]
    message = f"views read each other in a circle: {' -> '.join(circle)}"
    return definition.problem(message, waits_for[definition.name][1])
