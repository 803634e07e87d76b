"""Tracers: who begins spans, and under which parent."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.util._decorator import _agnosticcontextmanager

from micromegas import _core
from micromegas.record.otel.scope import Scope
from micromegas.record.otel.span import Span, age_of

SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class TracerProvider(trace.TracerProvider):
    """Gives tracers. Spans are recorded while the recorder does, whatever a remote parent's sampling flag says.

    With `follow_sampling`, spans below a remote parent that is not sampled are not recorded, only passed on.
    """

    def __init__(self, *, follow_sampling: bool = False) -> None:
        self._follow_sampling = follow_sampling

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "Tracer":
        scope = Scope(instrumenting_module_name, instrumenting_library_version, attributes)
        return Tracer(scope, self._follow_sampling)


class Tracer(trace.Tracer):
    """Begins spans in the name of one scope."""

    def __init__(self, scope: Scope, follow_sampling: bool) -> None:
        self._scope = scope
        self._follow_sampling = follow_sampling

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        name = str(name)
        parent, depth = _parent(context)
        if parent is None:
            trace_id, flags, state = random.getrandbits(128) or 1, SAMPLED, None
        else:
            trace_id, flags, state = parent.trace_id, parent.trace_flags, parent.trace_state
        native = None
        if not self._follow_sampling or flags.sampled:
            parent_id = parent.span_id if parent is not None else 0
            native = _core.open_span(self._scope.place, name, f"{trace_id:032x}", parent_id, depth, age_of(start_time))
        if native is None:
            return NonRecordingSpan(parent if parent is not None else trace.INVALID_SPAN_CONTEXT)
        own = SpanContext(trace_id, native.id, False, flags, state)
        return Span(
            self._scope,
            name,
            native,
            own,
            parent,
            kind,
            attributes,
            links,
            record_exception,
            set_status_on_exception,
        )

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(
            span,
            end_on_exit=end_on_exit,
            record_exception=record_exception,
            set_status_on_exception=set_status_on_exception,
        ) as current:
            yield current


def _parent(context: Context | None) -> tuple[SpanContext | None, int]:
    """The context of a new span's parent, and the depth of the new span."""
    span = trace.get_current_span(context)
    known = span.get_span_context()
    if context is None or context is context_api.get_current():
        innermost = _core.async_parent()
        if innermost is None:
            return None, 0
        trace_hex, span_id, depth = innermost
        if span_id == known.span_id:
            return known, depth
        # A span of our own inside of the API's, or without one.
        trace_id = int(trace_hex, 16)
        same_trace = known.is_valid and known.trace_id == trace_id
        flags = known.trace_flags if same_trace else SAMPLED
        return SpanContext(trace_id, span_id, False, flags, known.trace_state if same_trace else None), depth
    if not known.is_valid:
        return None, 0
    return known, span.native.depth + 1 if isinstance(span, Span) else 0
