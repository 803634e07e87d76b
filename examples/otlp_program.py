"""A program that knows OpenTelemetry and nothing of Micromegas: its own exporters send to the ingestion service.

pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9000/ingestion/otlp OTEL_SERVICE_NAME=shop python examples/otlp_program.py
"""

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

traces = TracerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
metrics = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])

sold = metrics.get_meter("shop").create_counter("sold")
tracer = traces.get_tracer("shop")
with tracer.start_as_current_span("checkout", attributes={"items": 3}), tracer.start_as_current_span("pay"):
    sold.add(3)

traces.shutdown()
metrics.shutdown()
