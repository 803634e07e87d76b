"""Other libraries doing what ours does, each as cheaply as it can be set up: nothing is written, nothing is sent.

What is not installed is left out; bench/peers.txt has the versions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from shapes import UNTRACED, Shape, copy_of_plain

FEW = 20
LOG, SPAN, COUNTER, METRIC = "log, one int", "with span (two events)", "counter.add(n)", "metric.record(float)"


def _structlog() -> dict[str, Shape]:
    import structlog

    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger().bind()
    return {
        "structlog, JSON": Shape("log.info('literal', x=x)", {"log": log, "x": 5}, nearest=LOG, loops=FEW),
        "structlog below its level": Shape("log.debug('x', x=x)", {"log": log, "x": 5}, nearest="log below its level"),
    }


def _loguru() -> dict[str, Shape]:
    from loguru import logger

    logger.remove()
    logger.add(lambda message: None, level="INFO")
    return {
        "loguru, sink that does nothing": Shape("log.info('x={}', x)", {"log": logger, "x": 5}, nearest=LOG, loops=FEW)
    }


def _opentelemetry() -> dict[str, Shape]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("bench")
    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench")
    counter, histogram = meter.create_counter("bench"), meter.create_histogram("bench_histogram")
    return {
        "OpenTelemetry SDK, span": Shape(
            "with tracer.start_as_current_span('x'): pass", {"tracer": tracer}, nearest=SPAN, loops=FEW
        ),
        "OpenTelemetry SDK, counter": Shape("c.add(x)", {"c": counter, "x": 5}, nearest=COUNTER, loops=FEW),
        "OpenTelemetry SDK, histogram": Shape("h.record(x)", {"h": histogram, "x": 1.5}, nearest=METRIC, loops=FEW),
    }


def _logfire() -> dict[str, Shape]:
    import logfire

    logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)
    return {
        "Logfire, info": Shape("fire.info('x={x}', x=x)", {"fire": logfire, "x": 5}, nearest=LOG, loops=4),
        "Logfire, span": Shape("with fire.span('x'): pass", {"fire": logfire}, nearest=SPAN, loops=4),
    }


def _prometheus() -> dict[str, Shape]:
    from prometheus_client import Counter, Histogram

    counter, histogram = Counter("bench", "bench"), Histogram("bench_histogram", "bench")
    return {
        "prometheus_client, counter": Shape("c.inc(x)", {"c": counter, "x": 5}, nearest=COUNTER, loops=200),
        "prometheus_client, histogram": Shape("h.observe(x)", {"h": histogram, "x": 1.5}, nearest=METRIC, loops=100),
    }


def _viztracer() -> dict[str, Shape]:
    from viztracer import VizTracer

    tracer = VizTracer(tracer_entries=100_000, ignore_c_function=True, verbose=0)

    @contextlib.contextmanager
    def tracing() -> Iterator[None]:
        tracer.start()
        try:
            yield
        finally:
            tracer.stop()
            tracer.clear()

    return {
        "viztracer, added to f(x)": Shape(
            "f(x)",
            {"f": copy_of_plain(), "x": 5},
            less=UNTRACED,
            nearest="@trace, added to f(x)",
            loops=200,
            around=tracing,
        )
    }


def peers() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    families: tuple[Callable[[], dict[str, Shape]], ...] = (
        _structlog,
        _loguru,
        _opentelemetry,
        _logfire,
        _prometheus,
        _viztracer,
    )
    for family in families:
        try:
            shapes |= family()
        except ImportError as error:
            print(f"left out, not installed: {error.name}")
    return shapes
