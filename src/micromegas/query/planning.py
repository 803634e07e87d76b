"""Planning of one statement, twice: over placeholders to learn what it needs of each table, then over the files that
hold it. All blocking work on data lies between the two passes, never in the engine's callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
from datafusion import DataFrame, LogicalPlan, SessionContext, col, lit, udtf
from datafusion.catalog import Catalog

from micromegas.query.block_events import ParseBlock
from micromegas.query.bounds import TimeRange
from micromegas.query.errors import QueryError, classified
from micromegas.query.frame_budget import FrameBudgetFunction
from micromegas.query.functions import ScalarFunction
from micromegas.query.functions.overloads import OverloadedCalls
from micromegas.query.lake_lists import lake_lists
from micromegas.query.listing_plan import ListingPlan
from micromegas.query.metadata_views import metadata_views
from micromegas.query.process_spans import ProcessSpans
from micromegas.query.recent_statements import RecentStatements
from micromegas.query.reduced_view import ReducedView
from micromegas.query.request import QueryRequest
from micromegas.query.scans import ScanNeed, is_explain, scan_needs
from micromegas.query.session import READ_ONLY, Place, Sessions
from micromegas.query.spool import Spool
from micromegas.query.sql_views import UNKNOWN_TABLE, ViewChecks
from micromegas.query.table_function import TableFunction
from micromegas.query.tables import GlobalView, LakeAccess, Preparation, QueryTable, TableFiles, in_range
from micromegas.query.trace_chunks import PerfettoTraceChunks
from micromegas.query.view_instance import ViewInstance
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.older_schema import OlderSchema
from micromegas.views.sql_definition import SqlDefinition, ViewProblem
from micromegas.views.view_set import ViewSet

_PLACEHOLDER_URL = "file:///micromegas-placeholder"
_UNRESOLVED = "unresolved|"
_INFORMATION_SCHEMA = "information_schema."
# A call without arguments, as those that tell the time are; and rows of which a plan shows the first few only.
_MAY_KNOW_THE_TIME = ("()", "Values: ")
_DIGEST = "approx_percentile_cont"
_MAX_CENTROIDS = 100_000
# The last argument as an optimized plan shows it, after that for the percentile: `Float64(0.5), Int64(100))`.
_CENTROIDS = re.compile(r"\w+\([^()]*\), U?Int\d+\((\d+)\)\)")


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """A statement ready to run. The context must live as long as the frame and its stream.

    `calls_tables`: it names table functions, whose schemas may differ from call to call.
    """

    frame: DataFrame
    context: SessionContext
    explain_only: bool
    assumes_begin: bool = False
    calls_tables: bool = False


@dataclass(frozen=True, slots=True)
class StatementLimits:
    """Bytes that one statement may decode beyond partitions, and list from the metadata."""

    tail_bytes: int
    list_bytes: int


class Catalogue:
    """Every table that statements can name. Thread-safe: holds no state of a statement."""

    def __init__(
        self,
        access: LakeAccess,
        sessions: Sessions,
        functions: Sequence[TableFunction] = (),
        administrators_scalars: Sequence[ScalarFunction] = (),
        definitions: Sequence[SqlDefinition] = (),
    ) -> None:
        views: list[QueryTable] = [
            GlobalView(access, view_set)
            for view_set in VIEW_SETS.values()
            if view_set.has_global and view_set.decoded is not None
        ]
        views += metadata_views(access.lake)
        self._sessions = sessions
        self.global_views: dict[str, QueryTable] = {table.name.split("|")[0]: table for table in views}
        self.reduced_views: list[ReducedView] = []
        """Those defined by SQL, each after those that it reads."""
        self.view_problems: list[ViewProblem] = []
        """Why definitions can't be used."""
        self._add_reduced_views(access, sessions, definitions)
        views += self.reduced_views
        self.view_sets: list[ViewSet] = [
            *VIEW_SETS.values(),
            *(table.view_set for table in self.reduced_views if table.view_set.name not in VIEW_SETS),
        ]
        self.functions: list[TableFunction] = [
            ViewInstance(access, self.global_views),
            ParseBlock(access.lake),
            ProcessSpans(access, self.rows),
            PerfettoTraceChunks(access, self.rows, sessions.derive),
            FrameBudgetFunction(access, self.rows, sessions.derive),
            *lake_lists(access.lake, self.view_sets),
            *functions,
        ]
        self.administrators_scalars = administrators_scalars
        schemas = [table.schema for table in views]
        schemas += [schema for function in self.functions for schema in function.schemas]
        scratch = sessions.derive()
        # By identity, as comparing schemas costs more than the rest; every table has one of these very objects.
        self._schemas = schemas
        self._parquet = {id(schema): ListingPlan(scratch, schema) for schema in schemas}
        self._older = {
            older.schema_hash: ListingPlan(scratch, older.schema)
            for view_set in VIEW_SETS.values()
            for older in view_set.older
        }
        self._arrow = {id(schema): ListingPlan(scratch, schema, arrow=True) for schema in schemas}
        self.placeholders: Catalog = sessions.new_catalog()
        context = sessions.derive(self.placeholders)
        for name, table in self.global_views.items():
            context.register_table(name, self.placeholder(context, table).into_view())

    def _add_reduced_views(self, access: LakeAccess, sessions: Sessions, definitions: Sequence[SqlDefinition]) -> None:
        own = [view_set.reduced.definition for view_set in VIEW_SETS.values() if view_set.reduced is not None]
        for given, taken in ((own, ()), (definitions, VIEW_SETS)):
            views, problems = ViewChecks(sessions, self.global_views, taken).checked(given)
            self.view_problems += problems
            for view in views:
                sources = {name: self.global_views[name] for name in view.source_names}
                view_set = VIEW_SETS.get(view.view_set.name, view.view_set)
                table = ReducedView(access, sessions, self, view_set, sources)
                self.reduced_views.append(table)
                self.global_views[view_set.name] = table

    def placeholder(self, context: SessionContext, table: QueryTable, prefix: str = "") -> DataFrame:
        """The table without any file, to be planned but never to be run."""
        return self._parquet[id(table.schema)].table(context, prefix + table.name, [f"{_PLACEHOLDER_URL}.parquet"])

    def rows(self, table: QueryTable, need: ScanNeed, preparation: Preparation) -> DataFrame:
        """The rows of a table within the request's range, and maybe not those outside of the need, for tables that are
        made of others. Blocks. Raises `QueryError`."""
        context = self._sessions.derive(place=preparation.place)
        return self.filled(context, table, table.files(need, preparation), preparation)

    def filled(
        self, context: SessionContext, table: QueryTable, files: TableFiles, preparation: Preparation
    ) -> DataFrame:
        """The table over its files, restricted to the request's range."""
        if files.is_empty and not preparation.explain_only:
            # The optimizer makes nothing of it, and of what would be made of it alone.
            return self.placeholder(context, table).filter(lit(False))
        if files.is_empty:
            # A plan to be shown tells of the table nevertheless: nobody looked for its tail.
            spooled = preparation.spool.write(table.schema, [], table.name, preparation.max_list_bytes)
            files = TableFiles(spooled=spooled)
        return in_range(self._frame(context, table, files), table.view_set, preparation.request_range)

    def _frame(self, context: SessionContext, table: QueryTable, files: TableFiles) -> DataFrame:
        if files.derived is not None:
            return files.derived
        parts = []
        if files.parquet:
            parts.append(self._parquet[id(table.schema)].table(context, table.name, files.parquet))
        for older in table.view_set.older if table.view_set is not None else ():
            if urls := files.older.get(older.schema_hash):
                name = f"{table.name}|{older.schema_hash.hex()}"
                parts.append(_in_schema(self._older[older.schema_hash].table(context, name, urls), older, table.schema))
        if files.spooled:
            plan = self._arrow[id(table.schema)]
            parts.append(plan.table(context, f"{table.name}|unstored", files.spooled))
        return reduce(DataFrame.union, parts)

    def explained(self, error: QueryError) -> QueryError:
        """The error, or where it is about a view whose definition can't be used, the reason for that."""
        unknown = UNKNOWN_TABLE.search(error.message)
        for problem in self.view_problems:
            if unknown is not None and problem.view == unknown["name"]:
                return QueryError("invalid", str(problem))
        return error


def _in_schema(frame: DataFrame, older: OlderSchema, schema: pa.Schema) -> DataFrame:
    """Rows of an older schema with the columns of today."""
    columns = []
    for field in schema:
        if field.name in older.computed:
            column = frame.parse_sql_expr(older.computed[field.name])
        elif field.name in older.schema.names:
            column = col(f'"{field.name}"')
        else:
            column = lit(None)
        columns.append(column.cast(field.type).alias(field.name))
    return frame.select(*columns)


class PlanningPass:
    """A derived context whose table functions take their tables from `frame_of`; remembers which were named.

    With an `earlier` pass over the same statement its calls give the same tables: `now()` in an argument does not stand
    still between two passes.
    """

    def __init__(
        self,
        context: SessionContext,
        catalogue: Catalogue,
        frame_of: Callable[[SessionContext, QueryTable], DataFrame],
        *,
        administers: bool,
        earlier: PlanningPass | None = None,
    ) -> None:
        self.context = context
        self.tables: dict[str, QueryTable] = {table.name: table for table in catalogue.global_views.values()}
        self._catalogue = catalogue
        self._frame_of = frame_of
        self._refusal: QueryError | None = None
        self._calls: list[tuple[TableFunction, QueryTable]] = []
        self._earlier_calls = None if earlier is None else iter(earlier._calls)
        for function in catalogue.functions:
            if administers or not function.for_administrators:
                self.context.register_udtf(udtf(self._callback(function), function.name))
        if administers:
            for scalar in catalogue.administrators_scalars:
                scalar.register(self.context)

    @property
    def calls_tables(self) -> bool:
        """Whether table functions were named."""
        return bool(self._calls)

    def sql(self, statement: str, parameters: Mapping[str, pa.Scalar]) -> DataFrame:
        """The statement's plan; raises `QueryError`."""
        try:
            return self.context.sql_with_options(statement, READ_ONLY, param_values=dict(parameters) or None)
        except Exception as error:
            # What a table function refused comes back from the engine with a traceback around it.
            raise self._refusal or self._catalogue.explained(classified(error)) from None

    def _callback(self, function: TableFunction) -> Callable[..., DataFrame]:
        def call(*arguments: Any) -> DataFrame:
            try:
                table = self._table(function, arguments)
            except QueryError as error:
                self._refusal = error
                raise
            self._calls.append((function, table))
            self.tables[table.name] = table
            return self._frame_of(self.context, table)

        return call

    def _table(self, function: TableFunction, arguments: Sequence[Any]) -> QueryTable:
        if self._earlier_calls is None:
            return function.table_of(arguments)
        earlier, table = next(self._earlier_calls, (None, None))
        if earlier is not function or table is None:
            raise QueryError("internal", "the two plans of the statement differ in the functions that they call")
        return table


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the first pass found that a statement needs: of which tables, and which views its text names at all."""

    statement: str
    explain_only: bool
    tables: Mapping[str, QueryTable]
    needs: Mapping[str, ScanNeed]
    views: Sequence[str]

    def reads_all_time(self) -> bool:
        """Whether events of some view are wanted whenever they were."""
        for name, need in self.needs.items():
            view_set = self.tables[name].view_set
            if view_set is not None and (view_set.decoded or view_set.reduced) and need.bounds.time.is_open:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Draft:
    """What the first pass gave for a statement: its plan, optimized where that was asked for."""

    statement: str
    first: PlanningPass
    frame: DataFrame
    plan: LogicalPlan

    def reading(self, catalogue: Catalogue) -> _Reading:
        """What is to be read for it. Raises `QueryError` where it must not be run."""
        _refuse_huge_digests(self.plan)
        needs = scan_needs(self.plan, {name: table.filter_columns for name, table in self.first.tables.items()})
        shown = self.frame.logical_plan().display_indent()
        views = [
            name
            for name, table in catalogue.global_views.items()
            if table.name in shown or _INFORMATION_SCHEMA in shown
        ]
        tables = {name: self.first.tables[name] for name in needs}
        return _Reading(self.statement, is_explain(self.plan), tables, needs, views)

    def is_lasting(self) -> bool:
        """Whether the optimizer makes the same of the statement whenever it is asked."""
        shown = self.frame.logical_plan().display_indent()
        return not self.first.calls_tables and not any(sign in shown for sign in _MAY_KNOW_THE_TIME)


class Planner:
    """Plans statements over one catalogue. Thread-safe."""

    def __init__(self, sessions: Sessions, catalogue: Catalogue, limits: StatementLimits) -> None:
        self._sessions = sessions
        self._catalogue = catalogue
        self._limits = limits
        self._readings: RecentStatements[_Reading] = RecentStatements()

    def describe(self, statement: str, parameters: Mapping[str, pa.Scalar], *, administers: bool) -> PlannedStatement:
        """Plans over placeholders only: good for schemas, never to be run."""
        draft = self._drafted(statement, parameters, administers=administers, optimize=False)
        first = draft.first
        return PlannedStatement(draft.frame, first.context, is_explain(draft.plan), calls_tables=first.calls_tables)

    def plan(
        self, statement: str, request: QueryRequest, spool: Spool, place: Place, is_wanted: Callable[[], bool]
    ) -> PlannedStatement:
        """Both passes with the work between them, to be run in the memory of `place`. Blocks, for long when partitions
        must be built.

        `statement` is the request's, ready to be planned. Raises `QueryError`.
        """
        catalogue, limits = self._catalogue, self._limits
        first: PlanningPass | None = None
        reading = None
        if not request.parameters:
            reading = self._readings.get(statement, administers=request.administers)
        if reading is None:
            draft = self._drafted(
                statement, request.parameters, administers=request.administers, optimize=True, place=place
            )
            first = draft.first
            reading = draft.reading(catalogue)
            if not reading.needs:
                # No table of the lake is read: what was planned can be run.
                return PlannedStatement(draft.frame, first.context, reading.explain_only)
            if not request.parameters and draft.is_lasting():
                self._readings.keep(statement, reading, administers=request.administers)
        request_range = TimeRange(request.begin, request.end)
        assumes = request.assumed_begin is not None and request_range.is_open and reading.reads_all_time()
        if assumes:
            request_range = TimeRange(request.assumed_begin, None)
        preparation = Preparation(
            request_range,
            spool,
            reading.explain_only,
            limits.tail_bytes,
            limits.list_bytes,
            is_wanted,
            place,
            request.user,
        )
        files = {name: reading.tables[name].files(need, preparation) for name, need in reading.needs.items()}

        def frame_of(context: SessionContext, table: QueryTable) -> DataFrame:
            if table.name not in files:
                return catalogue.placeholder(context, table, _UNRESOLVED)
            return catalogue.filled(context, table, files[table.name], preparation)

        context = self._sessions.derive(place=place) if first is None else self._sessions.emptied(first.context)
        for name in reading.views:
            context.register_table(name, frame_of(context, catalogue.global_views[name]).into_view())
        second = PlanningPass(context, catalogue, frame_of, administers=request.administers, earlier=first)
        frame = second.sql(reading.statement, request.parameters)
        _refuse_unresolved(frame)
        return PlannedStatement(frame, second.context, reading.explain_only, assumes)

    def _drafted(
        self,
        statement: str,
        parameters: Mapping[str, pa.Scalar],
        *,
        administers: bool,
        optimize: bool,
        place: Place | None = None,
    ) -> _Draft:
        """The first pass over the statement, or over it with overloaded calls in the form that their arguments need.

        The engine looks at the types in some clauses only when it optimizes, which placeholders without values may not
        survive.
        """

        def planned(text: str, overloads: OverloadedCalls | None = None) -> _Draft:
            first = self._first_pass(administers, place)
            if overloads is not None:
                overloads.register(first.context)
            frame = first.sql(text, parameters)
            try:
                plan = frame.optimized_logical_plan() if optimize else frame.logical_plan()
            except Exception as error:
                raise classified(error) from None
            return _Draft(text, first, frame, plan)

        try:
            return planned(statement)
        except QueryError as refusal:
            if not OverloadedCalls.may_mend(refusal):
                raise
            refused = refusal
        calls = OverloadedCalls(statement)
        while True:
            try:
                planned(calls.marked, calls)
            except QueryError as refusal:
                if not calls.choose(refusal):
                    raise refused from None
            else:
                return planned(calls.text)

    def _first_pass(self, administers: bool, place: Place | None) -> PlanningPass:
        context = self._sessions.derive(self._catalogue.placeholders, place)
        return PlanningPass(context, self._catalogue, self._catalogue.placeholder, administers=administers)


def _refuse_huge_digests(optimized: LogicalPlan) -> None:
    """The engine takes the memory of all centroids at once, and ends the process when there isn't that much."""
    shown = optimized.display_indent()
    if _DIGEST in shown and any(int(number) > _MAX_CENTROIDS for number in _CENTROIDS.findall(shown)):
        raise QueryError("invalid", f"{_DIGEST} with more than {_MAX_CENTROIDS} centroids")


def _refuse_unresolved(frame: DataFrame) -> None:
    """A table that the first plan had optimized away must be gone from the second, too: it has no files."""
    if _UNRESOLVED in frame.logical_plan().display_indent():
        shown = frame.optimized_logical_plan().display_indent()
        if f"TableScan: {_UNRESOLVED}" in shown:
            raise QueryError("internal", "the two plans of the statement differ in the tables that they read")
