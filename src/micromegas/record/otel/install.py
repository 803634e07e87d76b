"""Makes the recorder what the OpenTelemetry API speaks to."""

from opentelemetry import _logs, metrics, trace

from micromegas.record import stdlib_logging
from micromegas.record.otel import runtime_context
from micromegas.record.otel.logger_provider import LoggerProvider, ids_of_span
from micromegas.record.otel.meter_provider import MeterProvider
from micromegas.record.otel.tracer_provider import TracerProvider


def install(*, follow_sampling: bool) -> None:
    """See `install_otel`."""
    tracer_provider = TracerProvider(follow_sampling=follow_sampling)
    meter_provider = MeterProvider()
    logger_provider = LoggerProvider()
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(meter_provider)
    _logs.set_logger_provider(logger_provider)
    for kind, ours, active in (
        ("tracer", tracer_provider, trace.get_tracer_provider()),
        ("meter", meter_provider, metrics.get_meter_provider()),
        ("logger", logger_provider, _logs.get_logger_provider()),
    ):
        if active is not ours:
            raise RuntimeError(
                f"install_otel: the API has a {kind} provider already, {type(active).__module__}."
                f"{type(active).__qualname__}; call install_otel() before whatever sets it, and only once"
            )
    runtime_context.install()
    stdlib_logging.name_spans_by(ids_of_span)
