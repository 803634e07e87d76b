"""Table function `process_spans(process_id, types)`: the spans of all threads of a process, and its async spans.

Must never copy what can be scanned: each thread is the native scan of its own partitions with its name beside.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce

import pyarrow as pa
from datafusion import DataFrame, Expr, col, lit

from micromegas.lake import StreamRow
from micromegas.query.bounds import Bounds
from micromegas.query.errors import QueryError
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import Parameter, TableFunction
from micromegas.query.tables import InstanceView, LakeAccess, Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import DICT_STRING, required
from micromegas.views.async_spans import ASYNC_SPANS
from micromegas.views.block_decoding import decoded_from
from micromegas.views.thread_spans import THREAD_SPANS, thread_name

SCHEMA = pa.schema([required("stream_id", DICT_STRING), required("thread_name", DICT_STRING), *THREAD_SPANS.schema])
"""`stream_id` and `thread_name` (name and number of the thread), then the columns of `thread_spans`. Async spans have
the stream '' and the name `async`; their `id` and `parent` are those that the program gave them."""

SPAN_TYPES = ("thread", "async", "both")
"""What `types` may say: the spans of threads, the async spans, or both."""

Rows = Callable[[QueryTable, ScanNeed, Preparation], DataFrame]
"""How the rows of another table are read: within the request's range, and at least those that are needed."""

ASYNC_STREAM = ""
ASYNC_THREAD = "async"
_MAX_STREAMS = 4096
# They mostly wait, for the database and for builds that have threads of their own.
_PREPARING_THREADS = 16


class ProcessSpans(TableFunction):
    """`process_spans`."""

    name = "process_spans"
    parameters = (Parameter("process_id"), Parameter("types"))
    schemas = (SCHEMA,)
    description = (
        "The spans of all threads of a process (types `thread`), its async spans (`async`), or `both`. Async spans "
        "have the stream '' and the thread name `async`."
    )
    example = (
        "SELECT thread_name, name, count(*) AS spans, sum(duration) AS ns FROM process_spans('$process', 'both') "
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )

    def __init__(self, access: LakeAccess, rows: Rows) -> None:
        self._access = access
        self._rows = rows

    def table(self, process_id: str, types: str) -> QueryTable:
        if types not in SPAN_TYPES:
            raise QueryError("invalid", f"{self.signature}: types {types!r} is none of {', '.join(SPAN_TYPES)}")
        return SpansOfProcess(self._access, self._rows, checked_process_id(self.signature, process_id), types)


def checked_process_id(signature: str, text: str) -> str:
    """The id in its usual form; raises `QueryError` for what is no id."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise QueryError("invalid", f"{signature}: {text!r} is not the id of a process") from None


class SpansOfProcess(QueryTable):
    """The spans of the `types` of one process."""

    def __init__(self, access: LakeAccess, rows: Rows, process_id: str, types: str) -> None:
        self.name = f"process_spans|{process_id}|{types}"
        self.schema = SCHEMA
        self.filter_columns = FilterColumns(THREAD_SPANS.time_columns, values=("stream_id", "thread_name"))
        self._access = access
        self._rows = rows
        self._process_id = process_id
        self._types = types

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        metadata = self._access.lake.metadata
        if not metadata.processes([self._process_id]):
            raise QueryError("invalid", f"unknown process {self._process_id}")
        if preparation.within_request(need.bounds, self.filter_columns).time.is_open:
            raise QueryError(
                "invalid",
                "process_spans needs a time range: send one with the query, or restrict begin and end in its WHERE "
                "clause",
            )
        frames: list[DataFrame] = []
        if self._types != "async":
            frames += self._threads(need, preparation)
        if self._types != "thread" and _may_be(need.bounds, ASYNC_STREAM, ASYNC_THREAD):
            frames.append(self._async_spans(need, preparation))
        return TableFiles(derived=reduce(DataFrame.union, frames)) if frames else TableFiles()

    def _threads(self, need: ScanNeed, preparation: Preparation) -> list[DataFrame]:
        """The rows of each thread with blocks or rows in range; partitions that lack are built side by side."""
        wanted = [
            (stream, name)
            for stream in self._streams(preparation.within_request(need.bounds, self.filter_columns))
            if _may_be(need.bounds, stream.stream_id, name := thread_name(stream.stream_id, stream.properties))
        ]
        if not wanted:
            return []
        of_thread = replace(need, bounds=Bounds(need.bounds.time), columns=None, max_rows=None)

        def rows(stream: StreamRow) -> DataFrame:
            return self._rows(InstanceView(self._access, THREAD_SPANS, stream.stream_id), of_thread, preparation)

        with ThreadPoolExecutor(min(_PREPARING_THREADS, len(wanted)), thread_name_prefix="process-spans") as threads:
            frames = list(threads.map(rows, [stream for stream, _ in wanted]))
        return [
            _named(frame, stream.stream_id, name, [col(f'"{column}"') for column in THREAD_SPANS.schema.names])
            for frame, (stream, name) in zip(frames, wanted, strict=True)
        ]

    def _streams(self, bounds: Bounds) -> Sequence[StreamRow]:
        metadata = self._access.lake.metadata
        if bounds.time.is_empty:
            return []
        begin, end = bounds.time.begin, bounds.time.end
        of_blocks = metadata.stream_ids(
            tag=decoded_from(THREAD_SPANS).stream_tag, process_id=self._process_id, event_begin=begin, event_end=end
        )
        # Rows may be kept for longer than the blocks that they were made of.
        of_partitions = metadata.streams_with_rows(THREAD_SPANS.name, self._process_id, begin, end)
        ids = dict.fromkeys([*of_blocks, *of_partitions])
        if len(ids) > _MAX_STREAMS:
            raise QueryError(
                "exhausted",
                f"process {self._process_id} has {len(ids)} threads in range, at most {_MAX_STREAMS} fit one query; "
                "narrow the range, or ask for some of them by stream_id",
            )
        return list(metadata.streams(ids).values())

    def _async_spans(self, need: ScanNeed, preparation: Preparation) -> DataFrame:
        """Those of which both ends are known."""
        of_spans = replace(need, bounds=Bounds(need.bounds.time), columns=None, max_rows=None)
        spans = self._rows(InstanceView(self._access, ASYNC_SPANS, self._process_id), of_spans, preparation)
        closed = spans.filter((col("state") == lit("closed")) & (col("begin") < col("end")))
        columns = [col("span_id").alias("id"), col("parent_span_id").alias("parent")]
        columns += [col(f'"{column}"') for column in THREAD_SPANS.schema.names[len(columns) :]]
        return _named(closed, ASYNC_STREAM, ASYNC_THREAD, columns)


def _may_be(bounds: Bounds, stream_id: str, name: str) -> bool:
    """Whether a filter lets rows of the thread pass."""
    streams, names = bounds.allowed("stream_id"), bounds.allowed("thread_name")
    return (streams is None or stream_id in streams) and (names is None or name in names)


def _named(frame: DataFrame, stream_id: str, name: str, columns: Sequence[Expr]) -> DataFrame:
    return frame.select(
        lit(pa.scalar(stream_id, DICT_STRING)).alias("stream_id"),
        lit(pa.scalar(name, DICT_STRING)).alias("thread_name"),
        *columns,
    )
