"""A request that is being served: one async span, one measure of its duration, a log line if wanted.

Shared by the ASGI and the WSGI middleware. Must never raise into the server, and never change what it sends.
"""

import random
import time
from typing import TYPE_CHECKING

from micromegas import _core
from micromegas.record.levels import logger
from micromegas.record.metrics import metric
from micromegas.record.otel.series import Series
from micromegas.record.trace_context import parse

if TYPE_CHECKING:
    from contextvars import Token

    from micromegas._core import AsyncSpan

TARGET = "micromegas.http"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "WEBSOCKET"))
_place = _core.make_span("", TARGET.encode(), b"", 0)
_log = logger(TARGET)
_durations = Series(lambda properties: metric("http.server.duration", "ms", properties=properties, target=TARGET))


class ServedRequest:
    """Begun by `begin`; `enter` and `leave` surround code that works for it; `end` once."""

    def __init__(self, span: "AsyncSpan", method: str, path: str, logs: bool) -> None:
        self._span = span
        self._method = method
        self._path = path
        self._logs = logs
        self._begin = time.perf_counter_ns()
        self._token: Token[AsyncSpan | None] | None = None
        self._ended = False

    @staticmethod
    def begin(method: str, path: str, traceparent: str | bytes | None, logs: bool) -> "ServedRequest | None":
        """A request that has come in; None while nothing is recorded."""
        if method not in _METHODS:
            method = "OTHER"  # names of spans and measures shall not be the clients' to choose
        remote = parse(traceparent)
        if remote is not None:
            trace, parent, depth = *remote, 0
        else:
            trace, parent, depth = _core.async_parent() or (f"{random.getrandbits(128) or 1:032x}", 0, 0)
        span = _core.open_span(_place, method, trace, parent, depth, 0)
        return None if span is None else ServedRequest(span, method, path, logs)

    def enter(self) -> None:
        """What runs now in this context runs for the request."""
        self._token = _core.current_async_span.set(self._span)

    def leave(self) -> None:
        """The opposite of `enter`, in the same context."""
        token, self._token = self._token, None
        if token is not None:
            try:
                _core.current_async_span.reset(token)
            except ValueError:
                return  # another context, which is not ours to change

    def end(self, route: str | None, status: int | None) -> None:
        """`route` is the pattern that the path matched; `status` None: nothing was answered."""
        if self._ended:
            return
        self._ended = True
        milliseconds = (time.perf_counter_ns() - self._begin) / 1_000_000
        answered = str(status) if status is not None else "none"
        _durations.of({"method": self._method, "route": route or "", "status": answered}).record(milliseconds)
        if self._logs:
            _log.info(
                "%s %s %s %.1f ms",
                self._method,
                self._path,
                answered,
                milliseconds,
                route=route or "",
                span_id=self._span.id,
            )
        self._span.close_as(f"{self._method} {route}" if route else self._method, 0)
