"""Loggers of the OpenTelemetry API: each record is a log event whose target is the scope."""

import logging
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import Logger as ApiLogger
from opentelemetry._logs import LoggerProvider as ApiLoggerProvider
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context.context import Context

from micromegas import _core
from micromegas.record import stdlib_logging
from micromegas.record.otel.attributes import properties_of, text_of
from micromegas.record.otel.scope import Scope


class LoggerProvider(ApiLoggerProvider):
    """Gives loggers."""

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "Logger":
        return Logger(name, version, schema_url, attributes)


def level_of(severity: SeverityNumber | None) -> str:
    """Our level of a severity: 1-4 trace, 5-8 debug, 9-12 (and none) info, 13-16 warn, 17-20 error, 21-24 fatal."""
    number = severity.value if severity is not None else 0
    if not number:
        return "info"
    return ("trace", "debug", "info", "warn", "error", "fatal")[min((number - 1) // 4, 5)]


def ids_of_span(context: Context | None = None) -> dict[str, str]:
    """Of the span that is current: its id as in SQL, and that of its trace; nothing where there is none."""
    current = trace.get_current_span(context).get_span_context()
    return {"span_id": str(current.span_id), "trace_id": f"{current.trace_id:032x}"} if current.is_valid else {}


def _is_recorded_already(caller: FrameType) -> bool:
    """Whether a handler of `logging`, such as that of opentelemetry-instrumentation-logging, says what we heard."""
    return stdlib_logging.is_installed() and isinstance(caller.f_locals.get("self"), logging.Handler)


class Logger(ApiLogger):
    """Records events in the name of one scope."""

    def __init__(
        self, name: str, version: str | None, schema_url: str | None, attributes: Mapping[str, Any] | None
    ) -> None:
        super().__init__(name, version, schema_url, attributes)
        self._scope = Scope(name, version, attributes)

    def emit(
        self,
        record: LogRecord | None = None,
        *,
        timestamp: int | None = None,
        observed_timestamp: int | None = None,
        context: Context | None = None,
        severity_number: SeverityNumber | None = None,
        severity_text: str | None = None,
        body: Any = None,
        attributes: Mapping[str, Any] | None = None,
        event_name: str | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if record is not None:
            timestamp, context = record.timestamp, record.context
            severity_number, body, attributes = record.severity_number, record.body, record.attributes
            event_name = getattr(record, "event_name", None)
            exception = getattr(record, "exception", None)
        level = level_of(severity_number)
        if not self._scope.log.is_enabled(level) or _is_recorded_already(sys._getframe(1)):
            return
        properties = properties_of(attributes) | self._scope.properties
        if event_name:
            properties["event_name"] = str(event_name)
        if timestamp is not None:
            properties["timestamp"] = str(timestamp)
        properties |= ids_of_span(context)
        message = text_of(body) if body is not None else str(event_name or "")
        record_event = getattr(self._scope.log, level)
        record_event("%s", message, exc_info=exception, properties=_core.make_properties(properties, False))

    def enabled(
        self,
        *,
        context: Context | None = None,
        severity_number: SeverityNumber | None = None,
        event_name: str | None = None,
    ) -> bool:
        return self._scope.log.is_enabled(level_of(severity_number))
