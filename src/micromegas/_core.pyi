"""The native core: block codec and recorder.

The codec reads untrusted bytes: whatever they are, a function below returns or raises `WireError`, and costs no more
memory than its limits say. It never touches storage or the network.
"""

import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from logging import LogRecord
from types import CodeType, FunctionType
from typing import Any, SupportsFloat, SupportsIndex, final

# ---- codec

class WireError(ValueError):
    """Bytes that do not follow the wire format.

    `events` is only there when `decode_events` raised it: the events before the bad record.
    """

    events: list[dict[str, Any]]

def parse_process(
    body: bytes, /
) -> tuple[str, str, str, str, str, str, str, int, int, int, str | None, dict[str, str]]:
    """Reads the body of `insert_process`.

    Gives `(process_id, exe, username, realname, computer, distro, cpu_brand, tsc_frequency, start_time, start_ticks,
    parent_process_id, properties)`: ids as hyphenated lower-case uuids, the frequency in ticks per second (0 when the
    sender did not know it), `start_time` in ns since the epoch. Raises `WireError`.
    """

STREAM_FORMATS: tuple[str, str]
"""How blocks can be encoded: `micromegas-transit` (LZ4 frames of records) and `micromegas-columns/1`."""

def parse_stream(body: bytes, /) -> tuple[str, str, bytes, bytes, list[str], dict[str, str], str]:
    """Reads the body of `insert_stream`.

    Gives `(process_id, stream_id, dependencies_metadata, objects_metadata, tags, properties, format)`; the format is
    any text, `micromegas-transit` when there was none. The two metadata are CBOR arrays of types in a
    canonical form: equal lists of types have equal bytes. Their meaning is not checked here, so that a stream whose
    layout cannot be used is kept. Raises `WireError`.
    """

def parse_block(body: bytes, /) -> tuple[str, str, str, int, int, int, int, bytes, int, int]:
    """Reads the body of `insert_block`.

    Gives `(block_id, stream_id, process_id, begin_time, end_time, begin_ticks, end_ticks, payload, object_offset,
    nb_objects)`: times in ns since the epoch, ticks relative to the start of the process. `payload` is the canonical
    CBOR map of the two compressed buffers as byte strings, to be stored as it is; they are not decompressed here.
    `nb_objects` is what the sender says and may be wrong, even negative. Raises `WireError`.
    """

def decode_events(
    dependencies_metadata: bytes,
    objects_metadata: bytes,
    payload: bytes,
    /,
    *,
    format: str = "micromegas-transit",
    max_values: int = 20_000_000,
    max_bytes: int = 268_435_456,
) -> list[dict[str, Any]]:
    """Every event of a block, in the order of its buffer, each as a dict of its members with its type in `$type`.

    References are followed: a description is a dict with its own `$type`, a property set a list of `[name, value]`.
    What several events refer to is one object, shared by them. Times are raw counter values. An event of a type whose
    layout nobody knows has `$type` only.

    `format` is that of the stream. `max_bytes` caps each decompressed buffer, `max_values` the members made.
    Raises `WireError` (with the events before the bad one in `events`) on the first thing that is wrong; the builders
    of `_engine` are more lenient.
    """

def columns_payload(
    dependencies_metadata: bytes, objects_metadata: bytes, payload: bytes, /, *, max_bytes: int = 268_435_456
) -> bytes:
    """A payload of records (`micromegas-transit`) as columns (`micromegas-columns/1`), for a stream of these layouts.

    Nothing that a reader reads is lost; bytes that none reads (padding) become zero. `max_bytes` caps each decompressed
    buffer. Raises `WireError`.
    """

def transit_payload(
    dependencies_metadata: bytes, objects_metadata: bytes, payload: bytes, /, *, max_bytes: int = 268_435_456
) -> bytes:
    """The opposite of `columns_payload`. Log events whose template and values are apart come out with their texts."""

# ---- recorder: hot types (csrc/)

@final
class Log:
    """Records log events, one method per level.

    The message is `message % values`, made by the recorder's own thread (by the caller where only Python can), never an
    error: what does not fit the template is shown beside it. Keyword values become properties of the event, as text.
    Any object may be given; what is no int, float, bool, None or str is turned to text by the call.

    Two keywords are no properties: `properties=` takes a set made by `mm.properties`, `exc_info=` an exception, or True
    for the one being handled: its traceback follows the message, and the event gets the properties `exception.type` and
    `exception.message`. `exception()` is `error(…, exc_info=True)`.
    """

    def fatal(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def critical(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def error(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def exception(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def warn(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def warning(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def info(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def debug(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def trace(
        self, message: object, /, *values: object, properties: object = ..., exc_info: object = ..., **named: object
    ) -> None: ...
    def is_enabled(self, level: str, /) -> bool:
        """Whether an event of this level would be recorded here. Raises ValueError when there is no such level."""

    def _set_limit(self, level: int, /) -> None: ...
    @property
    def target(self) -> str | None: ...

@final
class PropertySet:
    """Names and values, both text, that never change."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def interned(self) -> bool: ...

@final
class Metric:
    """A measure with a name and a unit."""

    def record(self, value: SupportsIndex | SupportsFloat, /) -> None: ...
    def record_with(
        self, value: SupportsIndex | SupportsFloat, /, *, properties: object = ..., **named: object
    ) -> None:
        """Record one measure with properties of its own: values by name, which become text, or a set."""

@final
class Counter:
    """A sum that is sent once per flush period."""

    def add(self, amount: SupportsIndex | SupportsFloat, /) -> None: ...

@final
class Span:
    """A named piece of work. It has no state: one object serves recursion and all threads."""

    def __enter__(self) -> Span: ...
    def __exit__(self, *exception: object) -> None: ...
    def __aenter__(self) -> Awaitable[Span]: ...
    def __aexit__(self, *exception: object) -> Awaitable[None]: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def open_async(self) -> AsyncSpan: ...

@final
class NamedSpan:
    """A span whose name was made at run time; used as a `Span` is."""

    def __enter__(self) -> NamedSpan: ...
    def __exit__(self, *exception: object) -> None: ...
    def __aenter__(self) -> Awaitable[NamedSpan]: ...
    def __aexit__(self, *exception: object) -> Awaitable[None]: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def open_async(self) -> AsyncSpan: ...

@final
class AsyncSpan:
    """A begun async span, the current one of its context until it is closed."""

    @property
    def id(self) -> int: ...
    @property
    def depth(self) -> int: ...
    def close(self) -> None: ...
    def close_as(self, name: str, age: int, /) -> None: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...

@final
class TracedFunction:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

log: Log

def span(name: str, /) -> Span | NamedSpan:
    """The span of this name at this place of the program: `with span("load"):` or `async with span("load"):`.

    In plain code `with` leaves a span of the thread. In a coroutine or async generator (and in a generator that runs
    in a task) it leaves an async span, which may pause at an `await`. `async with` does the same and is dearer, but
    tasks created inside have it as their parent even when they begin after its end. Names longer than 1000 characters
    are cut.
    """

def span_named(name: str, /) -> NamedSpan:
    """The same for a name made at run time, `with span_named(f"load {path}"):`, which may be any number of names.

    (`span` finds out by itself once a place has had 100 names; this says it from the start.)
    """

# ---- recorder: cold functions (src/recorder/python.rs), used by micromegas.record only

def trace_context() -> tuple[str, int] | None: ...
def adopt_trace(span: Span, trace: str, remote: int, /) -> AsyncSpan: ...
def open_span(span: Span, name: str, trace: str, parent: int, depth: int, age: int, /) -> AsyncSpan | None: ...
def remote_span(trace: str, span: int, /) -> AsyncSpan: ...
def async_parent() -> tuple[str, int, int] | None: ...

current_async_span: ContextVar[AsyncSpan | None]

def make_span(name: str, target: bytes, file: bytes, line: int, /) -> Span: ...
def make_metric(
    name: str,
    unit: bytes,
    target: bytes,
    file: bytes,
    line: int,
    properties: tuple[bytes, ...],
    with_context: bool,
    /,
) -> Metric: ...
def make_counter(
    name: str, unit: bytes, target: bytes, file: bytes, line: int, properties: tuple[bytes, ...], /
) -> Counter: ...

@final
class Frame:
    """A piece of work that comes again and again. It has no state: one object serves all threads."""

    def __enter__(self) -> Frame: ...
    def __exit__(self, *exception: object) -> None: ...

def make_frame(metric: Metric, budget_ns: int, /) -> Frame: ...
def make_gc_callback(metrics: tuple[Metric, ...], /) -> Callable[[str, dict[str, int]], None]:
    """A function for `gc.callbacks` that records how long each collection took, in ns, by generation."""

def give_code(function: FunctionType, code: CodeType, /) -> None: ...
def traced_code(code: CodeType, span: Span, /) -> CodeType: ...
def leave_code_alone(code: CodeType, /) -> None: ...
def auto_trace(decider: Callable[[object, str, str], bool] | None, /) -> None: ...

if sys.version_info >= (3, 12):
    def monitoring_callbacks(
        disable: object, /
    ) -> tuple[Callable[..., object], Callable[..., object], Callable[..., object], Callable[..., object]]: ...

def make_traced(function: Callable[..., Any], span: Span, /) -> TracedFunction: ...
def make_logger(target: bytes, is_stdlib: bool, /) -> Log | None: ...
def make_properties(mapping: dict[str, Any], interned: bool, /) -> PropertySet: ...
def record_log(
    level: int,
    target: str,
    file: str,
    line: int,
    message: object,
    values: tuple[object, ...],
    properties: dict[str, object] | None,
    exception: object,
    /,
) -> None: ...
def record_logging(record: LogRecord, /) -> None: ...
def set_logging(standard: frozenset[str], plain_size: int, levels: dict[int, int], /) -> None: ...
def set_global_properties(properties: PropertySet | None, /) -> None: ...
def set_log_levels(level: int, of_targets: tuple[tuple[bytes, int], ...], /) -> None: ...
def text_of(object: object, /) -> str: ...
def use_context() -> None: ...
def rename_thread(native_id: int, name: bytes, /) -> None: ...

context_properties: ContextVar[PropertySet | None]

def recorder_start(decisions: dict[str, object]) -> str: ...
def recorder_flush(timeout: float) -> bool: ...
def recorder_stop(timeout: float) -> bool: ...
def recorder_set_headers(headers: list[tuple[str, str]]) -> None: ...
def recorder_headers_refused() -> bool: ...
def recorder_after_fork() -> str | None: ...
def begin_exit() -> None: ...

VERSION: str

def catch_fatal_signals() -> None: ...
def leave_fatal_signals() -> None: ...
def catch_termination(signal: int, replace_handler: bool) -> bool: ...
def die_by(signal: int) -> None: ...
def recorder_status() -> dict[str, object] | None: ...

# ---- the spool (src/recorder/spool/python.rs), used by micromegas.record.spool_command only

def spool_sessions(folder: str) -> list[tuple[str, str, bool]]: ...
def spool_upload(folder: str, upload: dict[str, object], only_url: str | None, timeout: float) -> dict[str, Any]: ...

# ---- captures (src/recorder/capture.rs), used by micromegas.testing only

def capture_begin() -> int: ...
def capture_own_session() -> None: ...
def capture_take(serial: int) -> list[tuple[bytes, bytes, bytes]]: ...
def capture_end(serial: int) -> bool: ...
