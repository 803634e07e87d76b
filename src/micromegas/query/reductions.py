"""Rows for the partitions of views defined by SQL: what the daemon asks for, run by the engine within its budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from datafusion import DataFrame, col

from micromegas.lake import Partition
from micromegas.query.bounds import EVERYTHING
from micromegas.query.errors import QueryError, classified
from micromegas.query.reduced_view import ReducedView
from micromegas.query.session import Sessions
from micromegas.query.spool import Spool
from micromegas.query.stream import QueryStream
from micromegas.query.tables import Preparation
from micromegas.views.block_decoding import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from micromegas.views.partition_writer import InsertRange
from micromegas.views.time_order import used_dictionary_values
from micromegas.views.view_set import ViewSet

_LOOK_S = 0.2


class ReductionStopped(Exception):
    """The caller may not go on; what was made so far is of no use."""


@dataclass(frozen=True, slots=True)
class ReductionLimits:
    """What one reduction may take."""

    tail_bytes: int
    list_bytes: int
    timeout_s: float


class Reductions:
    """The views defined by SQL, each after those that it reads. Thread-safe."""

    def __init__(self, sessions: Sessions, views: Sequence[ReducedView], limits: ReductionLimits) -> None:
        self._sessions = sessions
        self._views = {view.view_set.name: view for view in views}
        self._limits = limits

    @property
    def view_sets(self) -> list[ViewSet]:
        return [view.view_set for view in self._views.values()]

    def view_set(self, name: str) -> ViewSet | None:
        """The view set of this name, if it is one of them."""
        view = self._views.get(name)
        return None if view is None else view.view_set

    def made_of(self, view_set: ViewSet) -> list[ViewSet]:
        """The views at the bottom of a view's sources: those that are not reduced themselves."""
        return [each for each in self._below(view_set) if each.reduced is None]

    def reduced_below(self, view_set: ViewSet) -> list[ViewSet]:
        """The reduced views between a view and those at the bottom."""
        return [each for each in self._below(view_set) if each.reduced is not None]

    def _below(self, view_set: ViewSet) -> list[ViewSet]:
        found: dict[str, ViewSet] = {}
        pending = [self._views[view_set.name]]
        while pending:
            for source in pending.pop().sources.values():
                if source.view_set is not None:
                    found[source.view_set.name] = source.view_set
                if isinstance(source, ReducedView):
                    pending.append(source)
        return list(found.values())

    def reduce(
        self,
        view_set: ViewSet,
        insert_range: InsertRange,
        parts: Sequence[Partition],
        write: Callable[[pa.Table], None],
        keep_going: Callable[[], bool],
    ) -> None:
        """Hands all rows of a range to `write`, as row groups in order of time: `parts`, which lie inside of the range,
        are merged with what the sources hold for the rest of it.

        It takes no more time and memory than a query may. Blocks; must not be called in an event loop. Raises
        `QueryError`, or `ReductionStopped` once `keep_going` says no.
        """
        view = self._views[view_set.name]
        spool = Spool(self._sessions.new_folder)
        deadline = time.monotonic() + self._limits.timeout_s
        limits = self._limits
        place = self._sessions.take_place()
        preparation = Preparation(EVERYTHING, spool, False, limits.tail_bytes, limits.list_bytes, keep_going, place)
        try:
            frame = _sorted(view.reduced(insert_range, parts, preparation), view_set)
            rows = _RowGroups(view_set, write)
            asyncio.run(self._run(frame, rows, deadline, keep_going))
            rows.finish()
        except (ReductionStopped, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not keep_going():
                # Planning may have been given up for that, too.
                raise ReductionStopped from None
            # Panics of the engine derive from BaseException.
            raise classified(error) from None
        finally:
            spool.close()
            place.release()

    async def _run(self, frame: DataFrame, rows: _RowGroups, deadline: float, keep_going: Callable[[], bool]) -> None:
        stream = QueryStream(
            rows.view_set.schema,
            frame.execute_stream(),
            frame,
            lambda _has_ended: None,
            limit=None,
            max_rows=None,
            deadline=deadline,
            timeout_s=self._limits.timeout_s,
        )
        try:
            while True:
                coming = asyncio.ensure_future(anext(stream, None))
                while not (await asyncio.wait([coming], timeout=_LOOK_S))[0]:
                    if not keep_going():
                        coming.cancel()
                        await asyncio.wait([coming])
                        raise ReductionStopped
                batch = coming.result()
                if batch is None:
                    return
                rows.add(batch)
        finally:
            await stream.aclose()


def _sorted(frame: DataFrame, view_set: ViewSet) -> DataFrame:
    """By time, then by all other columns: equal values beside each other take little room."""
    others = [
        field.name
        for field in view_set.schema
        if field.name != view_set.min_column and not pa.types.is_nested(field.type)
    ]
    return frame.sort(*(col(f'"{name}"').sort() for name in [view_set.min_column, *others]))


class _RowGroups:
    """Gathers batches into row groups."""

    def __init__(self, view_set: ViewSet, write: Callable[[pa.Table], None]) -> None:
        self.view_set = view_set
        self._write = write
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        for name in {self.view_set.min_column, self.view_set.max_column}:
            if batch.column(name).null_count:
                raise QueryError("invalid", f"view {self.view_set.name}: a row without {name} can't be found by time")
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self.finish()

    def finish(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending, self.view_set.schema).unify_dictionaries().combine_chunks()
            self._write(used_dictionary_values(table))
        self._pending, self._rows, self._bytes = [], 0, 0
