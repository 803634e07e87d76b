"""A program whose `logging` OpenTelemetry's instrumentation passes on, as we take it in ourselves."""

import logging

from opentelemetry import trace
from opentelemetry.instrumentation.logging import LoggingInstrumentor

import micromegas as mm

mm.init()
mm.install_otel()
LoggingInstrumentor().instrument()
with trace.get_tracer("shop").start_as_current_span("checkout"):
    logging.getLogger("shop.till").warning("paid %d", 12)
