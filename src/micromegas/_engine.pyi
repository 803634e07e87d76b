"""Blocks to Arrow batches, call trees and the kernels behind the SQL functions.

Needs no pyarrow: columns go in and out as objects with `__arrow_c_array__`. Kernels release the GIL and raise
`ValueError` for data that they cannot work on.
"""

from collections.abc import Sequence
from typing import Protocol, Self, final

class ArrowColumn(Protocol):
    """Any Arrow array: of pyarrow, of another library or of this module."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

@final
class ArrowArray:
    """A column; `pyarrow.array(it)` takes it over without a copy."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __len__(self) -> int: ...

@final
class ArrowBatch:
    """A record batch; `pyarrow.record_batch(it)` takes it over without a copy."""

    @property
    def num_rows(self) -> int: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __len__(self) -> int: ...

def ticks_to_time(ticks: int, start_time: int, start_ticks: int, frequency: int) -> int:
    """ns since the epoch of a counter value: `start_time` (ns) plus (`ticks` - `start_ticks`) / `frequency` (Hz).

    Integer arithmetic, rounded half away from zero; saturates at the ends of int64. `ValueError` for a frequency of
    zero or less.
    """

@final
class CallTree:
    """The call tree of one thread, from events that come one by one.

    Blocks in the order of (begin_ticks, end_ticks), each followed by its events; all ticks absolute, as events have
    them. A block that begins after the running maximum end starts a new tree. Events that do not pair up are mended or
    dropped and counted in `anomalies`, never an error; one outside of the time of its tree so far counts at its border.
    """

    def __new__(cls, thread_name: str, start_time: int, start_ticks: int, frequency: int) -> CallTree: ...
    @staticmethod
    def resume(thread_name: str, state: bytes) -> CallTree:
        """The tree that goes on from the state of another. `ValueError` for what is no state."""

    def scope(self, name: str, target: str, filename: str, line: int) -> int:
        """A handle of the scope for `on_begin` and `on_end`."""
    def begin_block(self, begin_ticks: int, end_ticks: int) -> None: ...
    def on_begin(self, ticks: int, scope: int, event_id: int) -> None: ...
    def on_end(self, ticks: int, scope: int, event_id: int) -> None: ...
    @property
    def anomalies(self) -> int: ...
    def finish(self) -> ArrowBatch:
        """The rows of `thread_spans`, each tree in pre-order; the object can't be used afterwards."""

    def finish_part(self, later: tuple[int, int]) -> tuple[ArrowBatch, bytes, tuple[int, int], bool]:
        """Instead of `finish` when more blocks follow in another tree: the rows of what has ended, and the state to
        resume from.

        `later` is the number of ends without a begin that come, in the tree now open, after this part, and the id of
        the first of them; (0, 0) as long as none is known. The last two values tell the same of this part: its ends
        without a begin in the tree that was open at its start, and whether that tree is open still.
        """

def property_get(properties: ArrowColumn, key: ArrowColumn) -> ArrowArray:
    """JSONB (binary, or a dictionary of it) and utf8 → dictionary<int32, utf8>.

    The key matches in any ASCII case; a string comes unquoted, another value as JSON text, a missing one as NULL.
    """

def properties_length(properties: ArrowColumn) -> ArrowArray:
    """JSONB → int32, the number of properties; NULL for what is no object."""

def properties_to_jsonb(properties: ArrowColumn) -> ArrowArray:
    """list<struct<key: utf8, value: utf8>>, or a dictionary of it, or JSONB → dictionary<int32, binary>.

    The last of equal keys wins; a NULL value drops its key.
    """

def properties_to_dict(properties: ArrowColumn) -> ArrowArray:
    """list<struct<key: utf8, value: utf8>> → dictionary<int32, that list>, equal lists once."""

def encode_properties(pairs: Sequence[tuple[str, str]]) -> bytes:
    """The JSONB object of one property set; the last of equal keys wins."""

def jsonb_parse(text: ArrowColumn) -> ArrowArray:
    """utf8 → dictionary<int32, binary>; NULL for a text that is no JSON. More than standard JSON is accepted.

    `ValueError` for a text of more than 2^24 values.
    """

def jsonb_format_json(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → dictionary<int32, utf8>, compact, keys in stored (sorted) order."""

def jsonb_get(jsonb: ArrowColumn, name: ArrowColumn) -> ArrowArray:
    """JSONB and utf8 → dictionary<int32, binary>, the member of that name in any ASCII case, or NULL."""

def jsonb_as_string(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → dictionary<int32, utf8>; NULL for what is no string."""

def jsonb_as_f64(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → float64; NULL for what is no number."""

def jsonb_as_i64(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → int64; NULL for what is no number, has a fraction or does not fit."""

def jsonb_object_keys(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → dictionary<int32, list<utf8>>; NULL for what is no object."""

def jsonb_array_length(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → int64; NULL for what is no array."""

def jsonb_path_query_first(jsonb: ArrowColumn, path: ArrowColumn) -> ArrowArray:
    """JSONB and utf8 → dictionary<int32, binary>, the first value that the SQL/JSON path (lax mode) leads to, or NULL.

    `ValueError` for a malformed path, for one that has too many values to look at, and for results that are 128 MiB
    larger than the documents.
    """

def jsonb_path_query(jsonb: ArrowColumn, path: ArrowColumn) -> ArrowArray:
    """As `jsonb_path_query_first`, a JSONB array of all such values."""

def jsonb_members(jsonb: ArrowColumn, is_row: ArrowColumn) -> ArrowArray:
    """JSONB and bool → list<struct<key: utf8, value: binary>>: members of objects, elements of arrays by their index.

    `ValueError` for a scalar, and for a NULL in `is_row`, which stands for no row.
    """

def jsonb_elements(jsonb: ArrowColumn) -> ArrowArray:
    """JSONB → list<struct<value: binary>>, the elements of arrays. `ValueError` for anything else but NULL."""

def histogram_bars(histogram: ArrowColumn, is_row: ArrowColumn) -> ArrowArray:
    """histogram and bool → list<struct<bin_center: float64, count: uint64>>, one per bin.

    `ValueError` for a NULL in `is_row`, which stands for no row.
    """

def rgba(red: ArrowColumn, green: ArrowColumn, blue: ArrowColumn, alpha: ArrowColumn) -> ArrowArray:
    """float64 components from 0 to 1 → uint32 0xRRGGBBAA."""

def lerp_color(from_: ArrowColumn, to: ArrowColumn, t: ArrowColumn, /) -> ArrowArray:
    """int64 colours (0xRRGGBBAA) and float64 → uint32. `ValueError` for what is no colour."""

def color_scale(name: ArrowColumn, t: ArrowColumn, alpha: ArrowColumn) -> ArrowArray:
    """utf8 and float64s from 0 to 1 → uint32. `ValueError` for an unknown scale."""

def lerp(a: ArrowColumn, b: ArrowColumn, t: ArrowColumn) -> ArrowArray:
    """float64 → a + (b - a) · t."""

def unlerp(a: ArrowColumn, b: ArrowColumn, x: ArrowColumn) -> ArrowArray:
    """float64 → (x - a) / (b - a)."""

def bin_center(x: ArrowColumn, size: ArrowColumn) -> ArrowArray:
    """float64 → the multiple of `size` that is nearest to `x`."""

def histogram_of_list(start: ArrowColumn, end: ArrowColumn, nb_bins: ArrowColumn, values: ArrowColumn) -> ArrowArray:
    """float64, float64, int64, list<float64> → a histogram per list; an empty one for a NULL list.

    `ValueError` for bounds that are NULL, not finite or reversed, and for fewer than one bin.
    """

def histogram_of_group(
    min_start: ArrowColumn,
    max_start: ArrowColumn,
    min_end: ArrowColumn,
    max_end: ArrowColumn,
    min_bins: ArrowColumn,
    max_bins: ArrowColumn,
    any_null: ArrowColumn,
    values: ArrowColumn,
) -> ArrowArray:
    """As `histogram_of_list`, for bounds computed per row.

    Takes their extremes over the group and whether any of them was NULL.

    NULL for a group without rows (`any_null` is NULL). `ValueError` too for bounds that change within the group.
    """

def sum_of_histograms(histograms: ArrowColumn) -> ArrowArray:
    """list<histogram> → histogram. NULLs are skipped; NULL when nothing is left.

    `ValueError` for histograms of different start, end or number of bins.
    """

def quantile_from_histogram(histogram: ArrowColumn, ratio: ArrowColumn) -> ArrowArray:
    """histogram, float64 → float64, interpolated in the bin that holds the quantile; NULL for NULL."""

def variance_from_histogram(histogram: ArrowColumn) -> ArrowArray:
    """histogram → float64, the variance of the sample; NaN for fewer than two values."""

def count_from_histogram(histogram: ArrowColumn) -> ArrowArray:
    """histogram → uint64, the number of values."""

def sum_from_histogram(histogram: ArrowColumn) -> ArrowArray:
    """histogram → float64, the sum of the values."""

def otlp_resources(
    signal: str, request: bytes, is_json: bool, max_bytes: int
) -> list[tuple[list[tuple[str, str]], tuple[int, int] | None, int, bytes, int]]:
    """An OTLP request (`logs`, `metrics` or `traces`) cut into those of its resources that have records.

    For each: its attributes as texts; the earliest and latest time of its records in ns since the epoch, None when none
    tells one; the number of records, a summary point counting four; the payload of a block, which is the resource's
    message in the envelope that all payloads have; and where in it the message begins. JSON becomes the same bytes as
    the same request in protobuf, at most about `max_bytes` of them. Releases the GIL.

    Raises `ValueError` for what is no such request, and for one of more than 2,000,000 records or 10,000 resources.
    """

class BlockSource(Protocol):
    """A block to be read: its row, its stream, its process and its stored payload.

    Times are ns since the epoch, block ticks relative to `start_ticks`, `frequency` is in ticks per second and must be
    known (more than 0): estimating it is the caller's business. An optional attribute `later_rates` tells where it was
    estimated better: (relative ticks, ns since the epoch, ticks per second) from there to the next, by ticks. A further
    one, `format`, is the stream's format; without it the payload holds records as they are (`micromegas-transit`). One
    that can't be read is a problem of the block.
    """

    @property
    def process_id(self) -> str: ...
    @property
    def stream_id(self) -> str: ...
    @property
    def block_id(self) -> str: ...
    @property
    def insert_time(self) -> int: ...
    @property
    def exe(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def computer(self) -> str: ...
    @property
    def process_properties(self) -> dict[str, str]: ...
    @property
    def start_time(self) -> int: ...
    @property
    def start_ticks(self) -> int: ...
    @property
    def frequency(self) -> int: ...
    @property
    def begin_ticks(self) -> int: ...
    @property
    def end_ticks(self) -> int: ...
    @property
    def object_offset(self) -> int: ...
    @property
    def dependencies_metadata(self) -> bytes: ...
    @property
    def objects_metadata(self) -> bytes: ...
    @property
    def payload(self) -> bytes: ...

class _RowsBuilder:
    """Rows of many blocks with shared dictionaries: one builder makes one row group after the other."""

    def __new__(cls) -> Self: ...
    def append(self, block: BlockSource) -> list[str]:
        """Adds a row per event and gives the problems of the block, at most 17 texts; no text means a clean block.

        Nothing that is in a block raises. An event that cannot be read is left out, events behind a corrupt record
        are lost, those before it stay; types of events that nobody knows are counted. Releases the GIL.

        Raises `ValueError` when a text column holds more than 1 GiB: `take` first.
        """

    @property
    def rows(self) -> int:
        """Rows since the last `take`."""

    @property
    def estimated_bytes(self) -> int:
        """Memory of the rows since the last `take`."""

    @property
    def min_time(self) -> int | None:
        """The least event time of those rows in ns since the epoch, whatever their order."""

    @property
    def max_time(self) -> int | None: ...
    def take(self) -> ArrowBatch:
        """The rows as a batch; the builder is empty afterwards."""

@final
class LogEntriesBuilder(_RowsBuilder):
    """Blocks of log streams to rows of `log_entries`.

    process_id, stream_id, block_id DS; insert_time ts; exe, username, computer DS; time ts; target DS; level int32;
    msg utf8; properties, process_properties DB. DS is dictionary<int32, utf8>, DB dictionary<int32, binary> of JSONB
    objects, ts timestamp[ns, "+00:00"]; no column is nullable. A property `target` or `level` (one of the six words)
    of a `TaggedLogString` replaces that of its description. Blocks of the format `otlp/v1/logs` are read, too.
    """

@final
class MeasuresBuilder(_RowsBuilder):
    """Blocks of metric streams to rows of `measures`.

    The columns of `log_entries` up to target, then name, unit DS; value float64; properties, process_properties DB.
    Properties `target`, `name` and `unit` replace those of the description. Integers of the unit `ticks` become
    seconds; those beyond 2^53 lose their last digits. Blocks of the format `otlp/v1/metrics` are read, too: sums and
    gauges give a row each, summaries and histograms `_count`, `_sum`, `_min` and `_max`.
    """

@final
class AsyncEventsBuilder(_RowsBuilder):
    """Blocks of thread streams to rows of `async_events`, one per begin or end of an async span.

    stream_id, block_id DS; time ts; event_type DS (`begin`, `end`); span_id, parent_span_id int64; depth, hash uint32;
    name, filename, target DS; line uint32; no column is nullable. Parent and depth are 0 for senders before 0.12.
    """

@final
class ImagesBuilder(_RowsBuilder):
    """Blocks of image streams to rows of `images`.

    The columns of `log_entries` up to time, then name utf8; format DS; payload_size int64 (bytes of data); data binary;
    no column is nullable.
    """

@final
class OtelSpansBuilder(_RowsBuilder):
    """Blocks of OTLP spans to rows of `otel_spans`.

    process_id, stream_id, block_id DS; insert_time ts; exe, username, computer utf8; process_properties DB; trace_id
    fixed_size_binary[16]; span_id fixed_size_binary[8]; parent_span_id fixed_size_binary[8], nullable; start_time,
    end_time ts; duration int64 (ns); name, kind, status DS; status_message utf8, nullable; properties DB; events, links
    binary (JSONB arrays). Spans whose ids have another length are left out. `min_time` and `max_time` are those of the
    starts.
    """

@final
class NetSpansBuilder(_RowsBuilder):
    """Blocks of network streams to rows of `net_spans`, one per span that ended and per property, children first.

    process_id, stream_id DS; span_id, parent_span_id int64 (-1 without a parent); depth uint32; kind DS (`connection`,
    `object`, `property`, `rpc`); name, connection_name DS; is_outgoing bool; begin_bits, end_bits, bit_size int64;
    begin_time, end_time ts; no column is nullable. The blocks of each stream come in the order of (begin_ticks,
    end_ticks). Ends that fit no open span are ignored; what is still open after the last block gives no row.
    `min_time` is of the begins, `max_time` of the ends.
    """

    def __new__(cls, state: bytes | None = None) -> Self:
        """Goes on from `state`, that of a builder before. `ValueError` for what is no state."""

    def state(self) -> bytes:
        """The open spans of all streams."""

@final
class AsyncSpansBuilder(_RowsBuilder):
    """Blocks of all threads of a process to rows of `async_spans`, one per span of which begin and end are known.

    stream_id DS; span_id, parent_span_id int64; depth, hash uint32; begin, end ts; duration int64 (ns); state DS; name,
    target, filename DS; line uint32; no column is nullable. The blocks come in any order. `min_time` is of the begins,
    `max_time` of the ends.
    """

    def __new__(cls, state: bytes | None = None) -> Self:
        """Goes on from `state`, that of a builder before. `ValueError` for what is no state."""

    def state(self) -> bytes:
        """The spans of which begin or end is unknown."""

    def unpaired(self) -> ArrowBatch:
        """Those spans as rows: `open` until the latest end of a block, or `begin_lost`."""

@final
class BlockEvents:
    """Every event of one block as JSONB, in steps. `ValueError` when the block can't be read."""

    def __new__(
        cls, dependencies_metadata: bytes, objects_metadata: bytes, payload: bytes, format: str = ...
    ) -> BlockEvents: ...
    @property
    def count(self) -> int:
        """Events given so far."""

    def read(self, max_rows: int) -> ArrowBatch:
        """The next events, at most `max_rows` and about 16 MiB; no rows at the end of the block.

        object_index int64, from 0; type_name utf8; value binary, a JSONB object: the members of the event, its type
        under `__type`, descriptions as objects, property sets as objects of texts, image data as the text `n bytes`.
        Of the formats `otlp/v1/…`: log records, data points and spans, with the names of OTLP's JSON form; what they
        share with others stands under `scope` and `metric`.
        Raises `ValueError` for an event that can't be read, when those before it were given.
        """

@final
class ThreadSpansBuilder:
    """Blocks of one thread to its call tree: rows of `thread_spans`.

    id, parent int64; depth, hash uint32; begin, end ts; duration int64 (ns); name, target, filename DS; line uint32;
    no column is nullable. Blocks come in the order of (begin_ticks, end_ticks) and have the same clock.
    """

    def __new__(cls, thread_name: str, state: bytes | None = None) -> ThreadSpansBuilder:
        """Goes on from `state`, that of a builder before. `ValueError` for what is no state."""

    def append(self, block: BlockSource) -> list[str]:
        """Adds the block's spans and gives its problems, as the other builders do, and how many events did not pair up.
        `RuntimeError` after `finish`."""

    @property
    def rows(self) -> int: ...
    @property
    def anomalies(self) -> int:
        """Events that did not pair up, and were mended or dropped."""

    def finish(self) -> ArrowBatch:
        """The rows, each tree in pre-order. `RuntimeError` when called again."""

    def finish_part(self, later: tuple[int, int]) -> tuple[ArrowBatch, bytes, tuple[int, int], bool]:
        """As `CallTree.finish_part`."""

@final
class TraceEncoder:
    """Rows of a process, each kind in order of time, to a trace for Perfetto.

    Kinds of rows (`inputs`) are `threads` and `async` (columns of `process_spans`), `measures` and `logs` (columns of
    the views). `time` (ns) is when the trace is said to begin. Threads must be known before their rows come.
    """

    def __new__(
        cls, process_id: str, process_name: str, labels: Sequence[str], time: int, inputs: Sequence[str]
    ) -> TraceEncoder: ...
    def add_thread(self, stream_id: str, name: str, number: int | None = None) -> None: ...
    def add_flows(self, batch: ArrowColumn) -> None:
        """Pairs of async spans to be connected: columns parent and id (of the child), int64."""

    def advance(self, max_bytes: int) -> str | None:
        """Writes until rows of a kind are needed (it is named), or `max_bytes` are ready, or everything is written.

        Raises `ValueError` for rows that are not in order of time.
        """

    def feed(self, input: str, batch: ArrowColumn | None) -> None:
        """The next rows of the kind that was named; None when there are no more."""

    def take(self) -> bytes:
        """What is ready: whole packets. Nothing when everything was taken."""

@final
class FrameBudget:
    """Frames (spans of `span_name`) that took longer than `budget` ns and lie within `begin` and `end` (ns), with the
    spans inside of them summed by name and target: rows of `frame_budget`.

    Spans (columns of `process_spans`) come in order of stream_id, begin, id. Each call gives the rows of the frames
    that were finished by then; `ValueError` for spans that are not in order of time.
    """

    def __new__(cls, span_name: str, budget: int, begin: int, end: int) -> FrameBudget: ...
    def feed(self, batch: ArrowColumn) -> ArrowBatch: ...
    def finish(self) -> ArrowBatch: ...

def postgres_rows(batch: ArrowColumn, forms: Sequence[int], element_oids: Sequence[int]) -> bytes:
    """A record batch as `DataRow` messages of the PostgreSQL protocol.

    Per column a form (0 text, 1 binary, 2 binary `jsonb` of a text) and, for a list, the type number of its elements.
    `ValueError` for a column whose type has no form.
    """

def postgres_copy_binary_rows(batch: ArrowColumn, forms: Sequence[int], element_oids: Sequence[int]) -> bytes:
    """As `postgres_rows`, as `CopyData` messages of COPY's binary format without its header and trailer."""

def postgres_copy_rows(batch: ArrowColumn, style: tuple[bool, int, bytes, int, int, bool]) -> bytes:
    """A record batch as `CopyData` messages of COPY's text or CSV format.

    `style`: whether it is CSV, the delimiter, the text for NULL, the quote, what stands before a quote, whether all
    values are quoted.
    """
