"""The query engine: SQL over the views of one lake. Writes nothing but partitions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from datafusion.expr import Analyze, DescribeTable, Explain

from micromegas.config import QuerySettings
from micromegas.lake import Lake
from micromegas.query import functions
from micromegas.query.bounds import MAX_TIME, MIN_TIME
from micromegas.query.deny_list import DenyList
from micromegas.query.errors import QueryError, classified
from micromegas.query.functions import ScalarFunction
from micromegas.query.guard import checked_statement
from micromegas.query.hot_blocks import HotBlocks
from micromegas.query.just_in_time import JustInTime
from micromegas.query.parameters import ParameterTypes
from micromegas.query.partition_files import PartitionFiles
from micromegas.query.payload_function import get_payload_function
from micromegas.query.planning import Catalogue, Planner, StatementLimits
from micromegas.query.recent_statements import RecentStatements
from micromegas.query.reductions import ReductionLimits, Reductions
from micromegas.query.request import QueryRequest, StatementDescription, TableDescription
from micromegas.query.session import Place, Sessions
from micromegas.query.shown_plans import ShownPlans
from micromegas.query.spool import Spool
from micromegas.query.stream import QueryStream, portable_schema
from micromegas.query.table_function import TableFunction
from micromegas.query.tables import LakeAccess
from micromegas.query.work_in_hand import Piece, WorkInHand
from micromegas.views.sql_definition import SqlDefinition, ViewProblem, read_definitions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# A planning thread mostly waits: for the database, for partitions that another query builds.
_PLANNING_THREADS = 32

_SHOWN = (Explain, Analyze)
# These must stay the root of their plan; their few rows are cut off in the stream.
_NOT_LIMITABLE = (*_SHOWN, DescribeTable)

_SOME_OBJECT = "object"


@dataclass(frozen=True, slots=True)
class _Hold:
    """What a query has of the engine from its beginning to its end, and whether it was given up."""

    spool: Spool
    place: Place
    abandoned: threading.Event
    work: WorkInHand
    piece: Piece

    def release(self, has_ended: bool) -> None:
        """May be called more than once; `has_ended`: the work is over, and not only unwanted."""
        if has_ended:
            self.work.finish(self.piece)
        else:
            self.work.cut(self.piece)
        self.spool.close()
        self.place.release()


class QueryEngine:
    """SQL over one lake; one engine per process, used by any number of queries at once. `close()` ends its threads.

    The environment variable TOKIO_WORKER_THREADS, read by the engine at its first use, should be at least 8.
    """

    def __init__(
        self,
        lake: Lake,
        settings: QuerySettings,
        table_functions: Sequence[TableFunction] = (),
        administrators_scalars: Sequence[ScalarFunction] = (),
        deny_list: DenyList | None = None,
    ) -> None:
        """Raises `OSError` when the file of views can't be read, `UnicodeDecodeError` when it is no text; what is wrong
        with one of its views is no reason to fail.

        `table_functions` come beside the engine's own; parts of the program that it doesn't know may offer some.
        `administrators_scalars` are functions of a row that exist in statements of administrators only. `deny_list`
        refuses requests before they are planned.
        """
        self._settings = settings
        self._deny_list = deny_list
        self._sessions = Sessions(settings, lake.objects.datafusion_store())
        self._shown_plans = ShownPlans(lake.objects.url_of(_SOME_OBJECT), _SOME_OBJECT, self._sessions.folder)
        self._just_in_time = JustInTime(lake, settings.statement_timeout_s)
        self._partition_files = PartitionFiles(lake)
        self.scalars: tuple[ScalarFunction, ...] = (*functions.SCALARS, get_payload_function(lake))
        for base in self._sessions.bases:
            functions.register(base, self.scalars, settings.share_bytes)
        access = LakeAccess(lake, self._just_in_time, self._partition_files, HotBlocks(lake, settings.hot_bytes))
        definitions, problems = _definitions(settings.views_file)
        self.administrators_scalars = tuple(administrators_scalars)
        self._catalogue = Catalogue(access, self._sessions, table_functions, self.administrators_scalars, definitions)
        self.view_problems: list[ViewProblem] = [*problems, *self._catalogue.view_problems]
        """What is wrong in the file of views, each told in the log, too."""
        for problem in self.view_problems:
            logger.error("%s", problem)
        self._descriptions: RecentStatements[StatementDescription] = RecentStatements()
        self._parameter_types = ParameterTypes(self._sessions.derive())
        limits = StatementLimits(settings.tail_bytes, settings.spill_bytes)
        self._planner = Planner(self._sessions, self._catalogue, limits)
        self.reductions = Reductions(
            self._sessions,
            self._catalogue.reduced_views,
            ReductionLimits(settings.tail_bytes, settings.spill_bytes, settings.statement_timeout_s),
        )
        """The views that a daemon may keep by means of this engine."""
        self.work_in_hand = WorkInHand()
        """What runs, and what was cut off and may go on."""
        self._planners = ThreadPoolExecutor(_PLANNING_THREADS, thread_name_prefix="query-plan")

    def describe(
        self, sql: str, parameters: Mapping[str, pa.Scalar] | None = None, *, administers: bool = False
    ) -> StatementDescription:
        """Schema of the result and of the placeholders; plans without touching data. Blocks for a few ms (call it in a
        thread from an event loop). Raises `QueryError`."""
        known = None if parameters else self._descriptions.get(sql, administers=administers)
        if known is not None:
            return known
        statement = self._expanded(checked_statement(sql))
        planned = _guarded(lambda: self._planner.describe(statement, parameters or {}, administers=administers))
        parameter_schema = self._parameter_types.schema_of(statement, planned.frame.logical_plan())
        description = StatementDescription(portable_schema(planned.frame.schema()), parameter_schema)
        if not parameters and not planned.calls_tables:
            self._descriptions.keep(sql, description, administers=administers)
        return description

    async def execute(self, request: QueryRequest) -> QueryStream:
        """Plans and starts the statement. Raises `QueryError`; cancelling the await ends the work."""
        statement = checked_statement(request.sql)
        if request.limit is not None and request.limit < 0:
            raise QueryError("invalid", f"limit {request.limit} is negative")
        for moment in (request.begin, request.end):
            if moment is not None and not MIN_TIME <= moment <= MAX_TIME:
                raise QueryError("invalid", f"time {moment} is out of range")
        timeout_s = self._settings.statement_timeout_s
        deadline = time.monotonic() + timeout_s
        spool = Spool(self._sessions.new_folder)
        work_in_hand = self.work_in_hand
        hold = _Hold(spool, self._sessions.take_place(), threading.Event(), work_in_hand, work_in_hand.begin(deadline))
        work = self._planners.submit(_guarded, lambda: self._start(statement, request, hold, deadline))
        started = asyncio.wrap_future(work)
        try:
            # A thread at work can't be cancelled: what it makes for nobody is dropped as soon as it returns.
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(started)
        except TimeoutError:
            _abandon(work, started, hold)
            raise QueryError("exhausted", f"the query took longer than {timeout_s:g} s") from None
        except asyncio.CancelledError:
            _abandon(work, started, hold)
            raise
        except QueryError:
            hold.release(has_ended=True)
            raise

    def tables(self) -> list[TableDescription]:
        """The global views, sorted by name."""
        return [TableDescription(name, table.schema) for name, table in sorted(self._catalogue.global_views.items())]

    @property
    def table_functions(self) -> list[TableFunction]:
        """All table functions, those of other parts of the program too."""
        return list(self._catalogue.functions)

    def close(self) -> None:
        """Waits for planning and builds in progress, then removes the scratch folder."""
        self._planners.shutdown()
        self._just_in_time.close()
        self._partition_files.close()
        self._sessions.close()

    def _expanded(self, statement: str) -> str:
        return functions.expanded(statement, (*self.scalars, *self.administrators_scalars))

    def _start(self, statement: str, request: QueryRequest, hold: _Hold, deadline: float) -> QueryStream:
        if self._deny_list is not None:
            self._deny_list.check(request)
        expanded = self._expanded(statement)
        planned = self._planner.plan(expanded, request, hold.spool, hold.place, lambda: not hold.abandoned.is_set())
        frame = planned.frame
        root = frame.logical_plan().to_variant()
        if request.limit is not None and not isinstance(root, _NOT_LIMITABLE):
            frame = frame.limit(request.limit)
        return QueryStream(
            portable_schema(frame.schema()),
            frame.execute_stream(),
            (frame, planned.context),
            hold.release,
            limit=request.limit,
            max_rows=self._settings.max_result_rows,
            deadline=deadline,
            timeout_s=self._settings.statement_timeout_s,
            assumes_begin=planned.assumes_begin,
            shown=self._shown_plans.shortened if isinstance(root, _SHOWN) else None,
        )


def _definitions(file: Path | None) -> tuple[list[SqlDefinition], list[ViewProblem]]:
    return ([], []) if file is None else read_definitions(file.read_text(encoding="utf-8"), file.name)


def _guarded(work: Callable[[], Result]) -> Result:
    """Runs blocking work; whatever goes wrong is a `QueryError`, panics of the engine included."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise classified(error) from None


def _abandon(work: Future[QueryStream], started: asyncio.Future[QueryStream], hold: _Hold) -> None:
    """Takes the planning of a query that nobody waits for any more out of the queue, or drops what it makes."""
    hold.abandoned.set()
    planned = hold.piece.planned = threading.Event()
    work.add_done_callback(lambda _: planned.set())
    hold.work.cut(hold.piece)
    started.add_done_callback(lambda future: None if future.cancelled() else future.exception())
    work.cancel()
    work.add_done_callback(lambda _: hold.release(has_ended=False))
