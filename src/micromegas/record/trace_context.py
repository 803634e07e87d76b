"""W3C trace context: the `traceparent` header of what is running here, and the adoption of one from elsewhere.

The trace of a process is its process id, the span id of the header is the `span_id` of SQL. An adopted trace is an
async span of its own: named by the trace id, target `micromegas.traceparent`, `parent_span_id` is the remote span.
"""

from types import TracebackType

from micromegas import _core

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from micromegas._core import AsyncSpan

TARGET = "micromegas.traceparent"
_HEXADECIMAL = frozenset("0123456789abcdef")


def traceparent() -> str | None:
    """The `traceparent` header for a request made here, None outside of async spans.

    Send it along: the other side's spans can then be joined with ours by `parent_span_id = span_id`.
    """
    context = _core.trace_context()
    if context is None:
        return None
    trace, span = context
    return f"00-{trace}-{span:016x}-01"


def parse(header: object) -> tuple[str, int] | None:
    """Trace id and span id of a `traceparent` header; None when it is not one."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    if not isinstance(header, str):
        return None
    parts = header.strip().split("-")
    if len(parts) < 4 or (parts[0] == "00" and len(parts) != 4):
        return None
    version, trace, span, flags = parts[:4]
    for text, length in ((version, 2), (trace, 32), (span, 16), (flags, 2)):
        if len(text) != length or not _HEXADECIMAL.issuperset(text):
            return None
    if version == "ff" or not int(trace, 16) or not int(span, 16):
        return None
    return trace, int(span, 16)


class remote_parent:
    """`with remote_parent(header):` — async spans opened inside belong to the trace of an incoming `traceparent`.

    Also around awaits. A header that is missing or malformed is ignored: spans inside are then as without it.
    """

    def __init__(self, header: str | bytes | None) -> None:
        self._adopted = parse(header)
        self._opened: AsyncSpan | None = None

    def __enter__(self) -> "remote_parent":
        if self._adopted is not None:
            self._opened = _core.adopt_trace(_core.make_span("", TARGET.encode(), b"", 0), *self._adopted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
