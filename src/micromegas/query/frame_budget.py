"""Table function `frame_budget(process_id, span_name, budget)`: frames that took too long, and what took the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, SessionContext, Table, col, lit
from datafusion import functions as f

from micromegas._engine import FrameBudget
from micromegas.query.bounds import EVERYTHING, MAX_TIME, MIN_TIME, Bounds, TimeRange
from micromegas.query.errors import QueryError
from micromegas.query.lazy_rows import LazyRows
from micromegas.query.process_spans import Rows, SpansOfProcess, checked_process_id
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.sorted_rows import selected, spooled_batches, spooled_in_order
from micromegas.query.table_function import Parameter, ParameterKind, TableFunction
from micromegas.query.tables import LakeAccess, Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required

SCHEMA = pa.schema(
    [
        required("stream_id", DICT_STRING),
        required("thread_name", DICT_STRING),
        required("frame_id", pa.int64()),
        required("frame_begin", TIMESTAMP),
        required("frame_end", TIMESTAMP),
        required("frame_ms", pa.float64()),
        required("over_ms", pa.float64()),
        required("name", DICT_STRING),
        required("target", DICT_STRING),
        required("count", pa.int64()),
        required("inclusive_ms", pa.float64()),
        required("exclusive_ms", pa.float64()),
        required("share", pa.float64()),
    ]
)
"""A row per slow frame and name of spans inside of it, the frame's own included; `frame_id` is the id of its span."""

_NS_PER_MS = 1_000_000
_SPAN_COLUMNS = ("stream_id", "thread_name", "id", "depth", "begin", "end", "name", "target")


class FrameBudgetFunction(TableFunction):
    """`frame_budget`."""

    name = "frame_budget"
    parameters = (Parameter("process_id"), Parameter("span_name"), Parameter("budget", ParameterKind.NUMBER))
    schemas = (SCHEMA,)
    description = (
        "The frames (spans of threads called `span_name`) that took longer than `budget` milliseconds and lie wholly "
        "in the time range, by thread and time, each with what took its time: a row per name of spans inside, the "
        "largest share first. `exclusive_ms` is time in none of a span's children, `share` its part of the frame: the "
        "shares of a frame add up to 1. `inclusive_ms` counts spans within others of their name once. A span of the "
        "name within a frame is part of that frame."
    )
    example = (
        "SELECT frame_id, frame_ms, over_ms, name, count, inclusive_ms, exclusive_ms, round(share, 3) AS share "
        "FROM frame_budget('$process', 'frame', 16.7)"
    )

    def __init__(self, access: LakeAccess, rows: Rows, new_context: Callable[[], SessionContext]) -> None:
        self._access = access
        self._rows = rows
        self._new_context = new_context

    def table(self, process_id: str, span_name: str, budget: float) -> QueryTable:
        process_id = checked_process_id(self.signature, process_id)
        if not (math.isfinite(budget) and 0 <= budget * _NS_PER_MS <= MAX_TIME):
            raise QueryError("invalid", f"{self.signature}: budget {budget} is no number of milliseconds")
        spans = SpansOfProcess(self._access, self._rows, process_id, "thread")
        return _SlowFrames(spans, self._rows, self._new_context, span_name, round(budget * _NS_PER_MS))


class _SlowFrames(QueryTable):
    """The frames over a budget (ns) of one process."""

    def __init__(
        self,
        spans: SpansOfProcess,
        rows: Rows,
        new_context: Callable[[], SessionContext],
        span_name: str,
        budget: int,
    ) -> None:
        self.name = f"frame_budget|{spans.name}|{span_name}|{budget}"
        self.schema = SCHEMA
        self.filter_columns = FilterColumns()
        self._spans = spans
        self._rows = rows
        self._new_context = new_context
        self._span_name = span_name
        self._budget = budget

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        everything = ScanNeed(Bounds(), EVERYTHING, None)
        spans = self._rows(self._spans, everything, preparation)
        if preparation.explain_only:
            return TableFiles()
        slow = self._slow_threads(spans)
        if slow.num_rows == 0:
            return TableFiles()
        times = TimeRange(*(_ns(slow, name, choose) for name, choose in (("first", min), ("last", max))))
        threads = frozenset(slow["stream_id"].to_pylist())
        inside = ScanNeed(Bounds(times, (("stream_id", threads),)), EVERYTHING, None)
        spans = self._rows(self._spans, inside, preparation)
        spans = spans.filter(col('"begin"') >= _moment(times.begin), col('"end"') <= _moment(times.end))
        order = ("stream_id", "begin", "id")
        path = spooled_in_order(preparation, "frame_budget", selected(spans, _SPAN_COLUMNS), order)
        wanted = preparation.request_range
        budget = partial(
            FrameBudget,
            self._span_name,
            self._budget,
            MIN_TIME if wanted.begin is None else wanted.begin,
            MAX_TIME if wanted.end is None else wanted.end,
        )
        rows = LazyRows(SCHEMA, partial(_slow_frames, budget, path))
        return TableFiles(derived=self._new_context().read_table(Table(rows)))

    def _slow_threads(self, spans: DataFrame) -> pa.Table:
        """The threads with spans of the name over budget, and when these first begin and last end."""
        slow = spans.filter(col("name") == lit(self._span_name), col("duration") > lit(self._budget))
        first, last = f.min(col('"begin"')).alias("first"), f.max(col('"end"')).alias("last")
        return slow.aggregate([col("stream_id")], [first, last]).to_arrow_table()


def _ns(table: pa.Table, name: str, choose: Callable[[list[int]], int]) -> int:
    return choose(table[name].cast(pa.int64()).to_pylist())


def _moment(nanoseconds: int | None) -> object:
    return lit(pa.scalar(nanoseconds, pa.int64()).cast(TIMESTAMP))


def _slow_frames(new_budget: Callable[[], FrameBudget], path: Path) -> Iterator[pa.RecordBatch]:
    budget = new_budget()
    for batch in spooled_batches(path):
        found = pa.record_batch(budget.feed(batch))
        if found.num_rows:
            yield found
    yield pa.record_batch(budget.finish())
