"""A span of the OpenTelemetry API: an async span on the wire, and a log event with what has no place in that."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from micromegas import _core
from micromegas.record.otel.attributes import properties_of, text_of

if TYPE_CHECKING:
    from micromegas._core import AsyncSpan
    from micromegas.record.otel.scope import Scope

MOST_LINKS = 32


def age_of(timestamp: int | None) -> int:
    """How long ago (ns) a time since the epoch was; 0 for none and for the future."""
    return 0 if timestamp is None else max(0, time.time_ns() - timestamp)


class Span(trace.Span):
    """Recording until `end`. Its methods may be called from any thread, and do nothing afterwards."""

    def __init__(
        self,
        scope: "Scope",
        name: str,
        native: "AsyncSpan",
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, Any] | None,
        links: Sequence[trace.Link] | None,
        record_exception: bool,
        set_status_on_exception: bool,
    ) -> None:
        self.native = native
        self._scope = scope
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self._links: list[tuple[SpanContext, Any]] = [(link.context, link.attributes) for link in links or ()]
        self._status = Status(StatusCode.UNSET)
        self._record_exception = record_exception
        self._set_status_on_exception = set_status_on_exception
        self._ended = False

    # What instrumentations of the SDK's spans read, too.

    @property
    def name(self) -> str:
        return self._name

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self._attributes

    @property
    def parent(self) -> SpanContext | None:
        return self._parent

    @property
    def kind(self) -> SpanKind:
        return self._kind

    @property
    def status(self) -> Status:
        return self._status

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return not self._ended

    def set_attribute(self, key: str, value: Any) -> None:
        if not self._ended:
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if not self._ended:
            self._attributes.update(attributes)

    def update_name(self, name: str) -> None:
        if not self._ended:
            self._name = str(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self._ended or self._status.status_code is StatusCode.OK:  # the specification: OK is final
            return
        if isinstance(status, StatusCode):
            status = Status(status, description if status is StatusCode.ERROR else None)
        if status.status_code is not StatusCode.UNSET:
            self._status = status

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if not self._ended:
            self._links.append((context, attributes))

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        if self._ended:
            return
        properties = properties_of(attributes)
        if timestamp is not None:
            properties["timestamp"] = str(timestamp)
        self._tell("info", text_of(name), properties)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self._ended:
            return
        properties = properties_of(attributes)
        if timestamp is not None:
            properties["timestamp"] = str(timestamp)
        if escaped:
            properties["exception.escaped"] = "true"
        self._tell("error", self._name, properties, exception)

    def end(self, end_time: int | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        level = "error" if self._status.status_code is StatusCode.ERROR else "debug"
        if self._scope.log.is_enabled(level):
            self._tell(level, self._name, self._details())
        self.native.close_as(self._name, age_of(end_time))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if isinstance(exc_val, Exception) and not self._ended:
            if self._record_exception:
                self.record_exception(exc_val, escaped=True)
            if self._set_status_on_exception:
                self.set_status(StatusCode.ERROR, f"{type(exc_val).__name__}: {text_of(exc_val)}")
        self.end()

    def _tell(
        self, level: str, message: str, properties: dict[str, str], exception: BaseException | None = None
    ) -> None:
        """Leave a log event with the ids to join it by: the span's as in `async_events`, the trace's as in headers."""
        getattr(self._scope.log, level)(
            "%s",
            message,
            exc_info=exception,
            properties=_core.make_properties(properties, False),
            span_id=self._context.span_id,
            trace_id=f"{self._context.trace_id:032x}",
        )

    def _details(self) -> dict[str, str]:
        properties = properties_of(self._attributes) | self._scope.properties
        if self._kind is not SpanKind.INTERNAL:
            properties["span.kind"] = self._kind.name.lower()
        if self._status.status_code is not StatusCode.UNSET:
            properties["span.status"] = self._status.status_code.name.lower()
            if self._status.description:
                properties["span.status_description"] = self._status.description
        for number, (linked, attributes) in enumerate(self._links[:MOST_LINKS]):
            properties[f"link.{number}"] = f"{linked.trace_id:032x}-{linked.span_id:016x}"
            for name, value in properties_of(attributes).items():
                properties[f"link.{number}.{name}"] = value
        if self._context.trace_state:
            properties["trace_state"] = self._context.trace_state.to_header()
        return properties
