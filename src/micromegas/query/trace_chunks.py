"""Table function `perfetto_trace_chunks(process_id, types, begin, end)`: what a process did, as a file for Perfetto.

The rows come from the views, sorted by the engine into files of the statement; the trace is written while its chunks
are read. Must never hold all rows, nor the whole trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, SessionContext, Table, col

from micromegas._engine import TraceEncoder
from micromegas.lake import ProcessRow
from micromegas.query.bounds import EVERYTHING, Bounds, TimeRange
from micromegas.query.errors import QueryError
from micromegas.query.lazy_rows import LazyRows
from micromegas.query.process_spans import Rows, SpansOfProcess, checked_process_id
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.sorted_rows import selected, spooled_batches, spooled_in_order
from micromegas.query.table_function import Parameter, ParameterKind, TableFunction
from micromegas.query.tables import InstanceView, LakeAccess, Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import required
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.thread_spans import thread_name

SCHEMA = pa.schema([required("chunk_id", pa.int32()), required("chunk_data", pa.binary())])
"""`chunk_id` counts from 0; the data of all chunks, one after the other, is the trace."""

TYPES = {
    "thread": ("threads",),
    "async": ("async",),
    "both": ("threads", "async"),
    "measures": ("measures",),
    "logs": ("logs",),
    "all": ("threads", "async", "measures", "logs"),
}
"""What `types` may say, several of them with commas between, and the encoder's names for what they hold."""

_CHUNK_BYTES = 512 * 1024
# More don't fit 64 bits for certain.
_MAX_DIGITS = 18
_SPAN_COLUMNS = ("stream_id", "id", "parent", "depth", "begin", "end", "name", "target", "filename", "line")
_MEASURE_COLUMNS = ("time", "target", "name", "unit", "value", "properties")
_LOG_COLUMNS = ("time", "target", "level", "msg", "properties")


class PerfettoTraceChunks(TableFunction):
    """`perfetto_trace_chunks`."""

    name = "perfetto_trace_chunks"
    parameters = (
        Parameter("process_id"),
        Parameter("types"),
        Parameter("begin", ParameterKind.TIME),
        Parameter("end", ParameterKind.TIME),
    )
    schemas = (SCHEMA,)
    description = (
        "A trace of a process for [ui.perfetto.dev](https://ui.perfetto.dev), in chunks that come in order and, one "
        "after the other, make the file; `micromegas trace` writes it. `types` are `thread` (spans of threads), "
        "`async` (async spans), `both`, `measures` (counters), `logs` (instants) or `all`, or several with commas."
    )
    example = (
        "SELECT chunk_id, left(encode(chunk_data, 'hex'), 2) AS first_byte FROM perfetto_trace_chunks('$process', "
        "'all', '2026-01-01T12:00:00Z', TIMESTAMP '2026-01-01T14:00:00+01:00')"
    )

    def __init__(self, access: LakeAccess, rows: Rows, new_context: Callable[[], SessionContext]) -> None:
        self._access = access
        self._rows = rows
        self._new_context = new_context

    def table(self, process_id: str, types: str, begin: int, end: int) -> QueryTable:
        process_id = checked_process_id(self.signature, process_id)
        words = [word.strip() for word in types.split(",")]
        unknown = [word for word in words if word not in TYPES]
        if unknown:
            raise QueryError("invalid", f"{self.signature}: types {unknown[0]!r} is none of {', '.join(TYPES)}")
        if begin > end:
            raise QueryError("invalid", f"{self.signature}: the begin lies after the end")
        inputs = tuple(name for name in TYPES["all"] if any(name in TYPES[word] for word in words))
        return _TraceChunks(self._access, self._rows, self._new_context, _Trace(process_id, inputs, begin, end))


@dataclass(frozen=True, slots=True)
class _Trace:
    """What is to be in a trace."""

    process_id: str
    inputs: tuple[str, ...]
    begin: int
    end: int


class _TraceChunks(QueryTable):
    """The chunks of one trace."""

    def __init__(
        self, access: LakeAccess, rows: Rows, new_context: Callable[[], SessionContext], trace: _Trace
    ) -> None:
        self.name = f"perfetto_trace_chunks|{trace}"
        self.schema = SCHEMA
        self.filter_columns = FilterColumns()
        self._access = access
        self._rows = rows
        self._new_context = new_context
        self._trace = trace

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        process_id = self._trace.process_id
        metadata = self._access.lake.metadata
        process = metadata.processes([process_id]).get(process_id)
        if process is None:
            raise QueryError("invalid", f"unknown process {process_id}")
        if preparation.explain_only:
            return TableFiles()
        times = TimeRange(self._trace.begin, self._trace.end).intersect(preparation.request_range)
        within = replace(preparation, request_range=times)
        frames = self._frames(within)
        sources = {
            name: spooled_in_order(within, f"trace: {name}", frame, order) for name, (frame, order) in frames.items()
        }
        flows = None
        if "async" in frames:
            flows = spooled_in_order(within, "trace: flows", _flows(frames["async"][0]), ())
        threads = [
            (stream.stream_id, thread_name(stream.stream_id, stream.properties), stream.properties.get("thread-id"))
            for stream in metadata.stream_rows(process_id=process_id, tag="cpu")
        ]
        written = _WrittenTrace(process, self._trace.begin, threads, sources, flows)
        rows = LazyRows(SCHEMA, partial(_chunks, written))
        return TableFiles(derived=self._new_context().read_table(Table(rows)))

    def _frames(self, preparation: Preparation) -> dict[str, tuple[DataFrame, Sequence[str]]]:
        """By input, the rows with the columns that put them in order."""
        need = ScanNeed(Bounds(), EVERYTHING, None)
        process_id = self._trace.process_id
        frames: dict[str, tuple[DataFrame, Sequence[str]]] = {}
        # Numbers of spans count up along a thread; those of async spans need not, but parents begin before children.
        for name, types, order in (
            ("threads", "thread", ("begin", "id")),
            ("async", "async", ("begin", "depth", "id")),
        ):
            if name in self._trace.inputs:
                spans = self._rows(SpansOfProcess(self._access, self._rows, process_id, types), need, preparation)
                frames[name] = selected(spans, _SPAN_COLUMNS), order
        for name, view_set, columns in (
            ("measures", MEASURES, _MEASURE_COLUMNS),
            ("logs", LOG_ENTRIES, _LOG_COLUMNS),
        ):
            if name in self._trace.inputs:
                events = self._rows(InstanceView(self._access, view_set, process_id), need, preparation)
                frames[name] = selected(events, columns), ("time",)
        return frames


def _flows(spans: DataFrame) -> DataFrame:
    """Pairs of async spans and their parents, as far as the parent is in the trace and begins first."""
    parents = spans.select(col("id").alias("parent_id"), col("begin").alias("parent_begin"))
    children = spans.select("id", "parent", "begin")
    pairs = children.join(parents, left_on="parent", right_on="parent_id", how="inner")
    return pairs.filter(col("parent_begin") <= col("begin")).select("parent", "id")


@dataclass(frozen=True, slots=True)
class _WrittenTrace:
    """A trace that is ready to be encoded: the files of its rows, and what is known beside them."""

    process: ProcessRow
    begin: int
    threads: Sequence[tuple[str, str, str | None]]
    sources: dict[str, Path]
    flows: Path | None

    def encoder(self) -> TraceEncoder:
        process = self.process
        labels = [f"process_id {process.process_id}", f"computer {process.computer}", f"user {process.username}"]
        encoder = TraceEncoder(process.process_id, process.exe, labels, self.begin, list(self.sources))
        for stream_id, name, number in self.threads:
            encoder.add_thread(stream_id, name, _thread_number(number))
        if self.flows is not None:
            for batch in spooled_batches(self.flows):
                encoder.add_flows(batch)
        return encoder


def _thread_number(text: str | None) -> int | None:
    """The system's number of a thread, as its sender tells it; None for what is none."""
    if text is None or not text.isdecimal() or len(text) > _MAX_DIGITS:
        return None
    return int(text)


def _chunks(trace: _WrittenTrace) -> Iterator[pa.RecordBatch]:
    encoder = trace.encoder()
    rows = {name: spooled_batches(path) for name, path in trace.sources.items()}
    chunk_id = 0
    while True:
        wanted = encoder.advance(_CHUNK_BYTES)
        if wanted is not None:
            encoder.feed(wanted, next(rows[wanted], None))
        elif data := encoder.take():
            yield pa.record_batch([pa.array([chunk_id], pa.int32()), pa.array([data], pa.binary())], schema=SCHEMA)
            chunk_id += 1
        else:
            return
