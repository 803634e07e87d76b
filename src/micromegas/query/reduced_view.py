"""A view defined by SQL as a table: the merge of its partitions with the transform of the source rows that are in none.

A source row must count in exactly one of the two: insert time decides, and ranges of it are closed once a partition
covers them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from typing import Protocol

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, col, lit
from datafusion.expr import EmptyRelation

from micromegas.lake import Partition
from micromegas.query.bounds import ANYTHING, EVERYTHING, Bounds
from micromegas.query.errors import QueryError, classified
from micromegas.query.functions import expanded
from micromegas.query.guard import checked_statement
from micromegas.query.scans import ScanNeed, scan_needs
from micromegas.query.session import READ_ONLY, Sessions
from micromegas.query.tables import LakeAccess, Preparation, QueryTable, TableFiles, filter_columns_of, in_range
from micromegas.views.coverage import uncovered
from micromegas.views.partition_writer import InsertRange
from micromegas.views.sql_definition import PARTS, SqlDefinition, in_file_lines
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# Source rows lie roughly in order of insert time: of so many ranges, or groups of them, most batches are asked once
# whether they lie near them at all.
_RANGES_TOGETHER = 16

_INSERT_TIME = "insert_time"


class Frames(Protocol):
    """Makes frames over files."""

    def placeholder(self, context: SessionContext, table: QueryTable) -> DataFrame: ...
    def filled(
        self, context: SessionContext, table: QueryTable, files: TableFiles, preparation: Preparation
    ) -> DataFrame: ...


class ReducedView(QueryTable):
    """A view reduced from `sources`, which are the tables that its transform reads, by the names it has for them."""

    by_insert_time = True

    def __init__(
        self,
        access: LakeAccess,
        sessions: Sessions,
        frames: Frames,
        view_set: ViewSet,
        sources: Mapping[str, QueryTable],
    ) -> None:
        if view_set.reduced is None:
            raise ValueError(f"view set {view_set.name} is not reduced from others")
        self.name = f"{view_set.name}|{GLOBAL_INSTANCE}"
        self.schema = view_set.schema
        self.filter_columns = filter_columns_of(view_set)
        self._view_set = view_set
        self.sources = sources
        self._definition = view_set.reduced.definition
        self._access = access
        self._sessions = sessions
        self._frames = frames
        self._stored = _StoredRows(view_set)
        # With sources and without: those of the newest bounds, as a statement that is asked again has the same.
        self._known_needs: dict[bool, tuple[Bounds, dict[str, ScanNeed]]] = {}

    @property
    def view_set(self) -> ViewSet:
        return self._view_set

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        # The watermark comes first: what is visible by then is in the partitions read next, or in none of them.
        everything = InsertRange(0, self._access.lake.metadata.watermark() + 1)
        bounds = preparation.within_request(need.bounds, self.filter_columns)
        return TableFiles(derived=self._within([everything], bounds, preparation))

    def files_inserted_within(
        self, ranges: Sequence[InsertRange], need: ScanNeed, preparation: Preparation
    ) -> TableFiles:
        return TableFiles(derived=self._within(ranges, need.bounds, preparation))

    def reduced(self, insert_range: InsertRange, parts: Sequence[Partition], preparation: Preparation) -> DataFrame:
        """All rows of a range: the merge of `parts`, which lie inside of it, with what they don't cover."""
        missing = uncovered(parts, insert_range.begin, insert_range.end)
        return self._rows(parts, missing, ANYTHING, preparation)

    def _within(self, ranges: Sequence[InsertRange], bounds: Bounds, preparation: Preparation) -> DataFrame:
        partitions = [
            partition
            for partition in self._access.lake.metadata.partitions(
                self._view_set.name, GLOBAL_INSTANCE, insert_begin=ranges[0].begin, insert_end=ranges[-1].end
            )
            if partition.schema_hash == self._view_set.schema_hash
        ]
        parts: list[Partition] = []
        missing: list[InsertRange] = []
        for each in ranges:
            inside = [
                partition
                for partition in partitions
                if each.begin <= partition.begin_insert_time and partition.end_insert_time <= each.end
            ]
            parts += inside
            missing += uncovered(inside, each.begin, each.end)
        return self._rows(parts, missing, bounds, preparation)

    def _rows(
        self,
        parts: Sequence[Partition],
        missing: Sequence[InsertRange],
        bounds: Bounds,
        preparation: Preparation,
    ) -> DataFrame:
        """Planned twice, as statements are: the first plan tells what of the partitions and sources is needed."""
        named = dict(self.sources) if missing else {}
        context = self._sessions.derive(place=preparation.place)
        needs = self._needs(context, named, bounds)
        stored = TableFiles()
        if self._stored.name in needs:
            stored = self._access.files_of(self._view_set, list(parts), needs[self._stored.name].bounds)
        # The range of the request is one of rows of this view, not of what they are made of.
        everywhen = replace(preparation, request_range=EVERYTHING)
        files = {
            # What is not needed is what the optimizer found not to matter.
            name: source.files_inserted_within(missing, replace(needs[source.name], max_rows=None), everywhen)
            if source.name in needs
            else TableFiles()
            for name, source in named.items()
        }
        is_empty = all(each.is_empty for each in files.values())
        if is_empty and not preparation.explain_only and self._nothing_of_nothing:
            named = {}
        source_rows = {
            name: self._source_rows(context, source, missing, files[name], everywhen) for name, source in named.items()
        }
        return self._plan(context, source_rows, self._frames.filled(context, self._stored, stored, everywhen))

    def _needs(self, context: SessionContext, named: Mapping[str, QueryTable], bounds: Bounds) -> dict[str, ScanNeed]:
        """What of the partitions and of the sources the rows within bounds are made of."""
        known = self._known_needs.get(bool(named))
        if known is not None and known[0] == bounds:
            return known[1]
        sources = {name: self._frames.placeholder(context, source) for name, source in named.items()}
        draft = self._plan(context, sources, self._frames.placeholder(context, self._stored))
        draft = in_range(draft, self._view_set, bounds.time)
        for name, allowed in bounds.values:
            if allowed:
                draft = draft.filter(reduce(Expr.__or__, [col(name) == lit(value) for value in sorted(allowed)]))
        columns = {table.name: table.filter_columns for table in [self._stored, *named.values()]}
        needs = scan_needs(draft.optimized_logical_plan(), columns)
        self._known_needs[bool(named)] = bounds, needs
        return needs

    @cached_property
    def _nothing_of_nothing(self) -> bool:
        """Whether the transform gives no row where its sources have none, as the optimizer can tell: a sum over
        everything is one row all the same."""
        context = self._sessions.derive()
        nothing = {
            name: self._frames.placeholder(context, source).filter(lit(False)) for name, source in self.sources.items()
        }
        plan = transformed(context, self._definition, nothing).optimized_logical_plan().to_variant()
        return isinstance(plan, EmptyRelation) and not plan.produce_one_row()

    def _source_rows(
        self,
        context: SessionContext,
        source: QueryTable,
        ranges: Sequence[InsertRange],
        files: TableFiles,
        preparation: Preparation,
    ) -> DataFrame:
        frame = self._frames.filled(context, source, files, preparation)
        exact = files.is_empty or files.derived is not None
        return frame if exact else frame.filter(_inserted_within(source, ranges))

    def _plan(self, context: SessionContext, sources: Mapping[str, DataFrame], stored: DataFrame) -> DataFrame:
        """The whole view over frames of its sources, where there are any, and of its partitions. Raises
        `QueryError`."""
        parts = stored
        if sources:
            parts = stored.union(in_schema(transformed(context, self._definition, sources), self.schema))
        return in_schema(merged(context, self._definition, parts), self.schema)


class _StoredRows(QueryTable):
    """The rows of the view's partitions."""

    def __init__(self, view_set: ViewSet) -> None:
        self.name = f"{view_set.name}|stored"
        self.schema = view_set.schema
        self.filter_columns = filter_columns_of(view_set)

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        raise QueryError("internal", f"{self.name} is no table of its own")


def transformed(context: SessionContext, definition: SqlDefinition, sources: Mapping[str, DataFrame]) -> DataFrame:
    """The transform over frames of the views that it names. Raises `QueryError`, as of the file's lines."""
    return _planned(context, definition, "transform", sources)


def merged(context: SessionContext, definition: SqlDefinition, parts: DataFrame) -> DataFrame:
    """The merge over a frame of rows of the view. Raises `QueryError`."""
    return _planned(context, definition, "merge", {PARTS: parts})


def _planned(
    context: SessionContext, definition: SqlDefinition, which: str, tables: Mapping[str, DataFrame]
) -> DataFrame:
    statement = definition.transform if which == "transform" else definition.merge
    for name, frame in tables.items():
        context.register_table(name, frame.into_view())
    try:
        return context.sql_with_options(expanded(checked_statement(statement.text)), READ_ONLY)
    except Exception as error:
        cause = classified(error)
        raise QueryError(cause.kind, f"{which}: {in_file_lines(cause.message, statement)}") from None
    finally:
        for name in tables:
            context.deregister_table(name)


def in_schema(frame: DataFrame, schema: pa.Schema) -> DataFrame:
    """The frame with its columns in the types of a schema of the same columns."""
    given = frame.schema()
    differing = {
        field.name: field.type for field, own in zip(schema, given, strict=True) if not own.type.equals(field.type)
    }
    return frame.cast(differing) if differing else frame


def _inserted_within(source: QueryTable, ranges: Sequence[InsertRange]) -> Expr:
    """Whether a source row was inserted within one of these ranges, which are in order: any number of them, since rows
    of the view may be all that is left of what lies between."""
    inserted, data_type = col(_INSERT_TIME), source.schema.field(_INSERT_TIME).type

    def moment(nanoseconds: int) -> Expr:
        return lit(pa.scalar(nanoseconds, pa.int64()).cast(data_type))

    def between(begin: int, end: int) -> Expr:
        return (inserted >= moment(begin)) & (inserted < moment(end))

    def within(some: Sequence[InsertRange]) -> Expr:
        if len(some) == 1:
            return between(some[0].begin, some[0].end)
        size = -(-len(some) // _RANGES_TOGETHER)
        parts = [some[first : first + size] for first in range(0, len(some), size)]
        return between(some[0].begin, some[-1].end) & reduce(Expr.__or__, [within(part) for part in parts])

    return within(ranges)
