"""What OTLP costs: a durable request beside a bare handler that reads the body, and rows beside parsing alone.

    python bench/otlp.py [--seconds 5] [--connections 64] [--records 200000]

Prints, for requests of 1, 100 and 1000 log records, requests per CPU-second (user + system) of the server process: a
handler that reads the body and answers 200, and the whole service over SQLite and a folder, which writes durably; the
ratio is to the bare handler of the same run. Then, for each kind of record, CPU seconds per million records (the best
of some repeats, one thread): the official parser (`FromString`, in C) on the same blocks, which makes no rows; cutting
a request as ingestion does; the view's builder with its batch. It must never count what making the requests costs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from decode import best_cpu_seconds
from ingest import ID_PLACE, bare_process, measure, send_until_stopped

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests")]

RECORDS_OF_A_REQUEST = (1, 100, 1000)
RECORDS_OF_A_BLOCK = 1000
START = 1_700_000_000_000_000_000
REPEAT = 5


def attributes(index: int) -> list[Any]:
    """What an instrumented web server says with each request."""
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    values = {
        "http.request.method": AnyValue(string_value="GET"),
        "http.route": AnyValue(string_value=f"/shop/{index % 20}"),
        "http.response.status_code": AnyValue(int_value=200 if index % 50 else 500),
        "server.port": AnyValue(int_value=8080),
    }
    return [KeyValue(key=key, value=value) for key, value in values.items()]


def resource() -> Any:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    facts = {"service.name": "shop", "service.namespace": "eu", "host.name": "box", "telemetry.sdk.language": "python"}
    return Resource(attributes=[KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in facts.items()])


def logs_request(count: int, text: str) -> Any:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

    request = ExportLogsServiceRequest()
    of = request.resource_logs.add(resource=resource())
    group = of.scope_logs.add(scope={"name": "shop.web"})
    for index in range(count):
        body = AnyValue(string_value=f"request {index} of {text} took {index % 97} ms")
        group.log_records.append(
            LogRecord(time_unix_nano=START + index, severity_number=9, body=body, attributes=attributes(index))
        )
    return request


def metrics_request(count: int) -> Any:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(resource=resource()).scope_metrics.add(scope={"name": "shop.web"})
    for metric_index in range(0, count, 20):
        metric = group.metrics.add(name=f"metric.{metric_index % 200}", unit="ms")
        for index in range(20):
            point = NumberDataPoint(time_unix_nano=START + index, as_double=index / 7, attributes=attributes(index))
            metric.gauge.data_points.append(point)
    return request


def traces_request(count: int) -> Any:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(resource=resource()).scope_spans.add(scope={"name": "shop.web"})
    for index in range(count):
        group.spans.append(
            Span(
                trace_id=(index // 10 + 1).to_bytes(16, "big"),
                span_id=(index + 1).to_bytes(8, "big"),
                name=f"GET /shop/{index % 20}",
                kind=2,
                start_time_unix_nano=START + index,
                end_time_unix_nano=START + index + 1000,
                attributes=attributes(index),
            )
        )
    return request


async def _load(port: int, records: int, connections: int, counts: dict[str, int], orders: Any) -> None:
    body = logs_request(records, ID_PLACE).SerializeToString()
    # the id in the text of its first record makes each request another one
    await send_until_stopped(
        port,
        "/ingestion/otlp/v1/logs",
        body,
        headers={"Content-Type": "application/x-protobuf"},
        connections=connections,
        counts=counts,
        orders=orders,
    )


def generate_load(port: int, records: int, connections: int, orders: Any) -> None:
    """The load generator's process: sends until told to stop, tells its counts when asked."""
    asyncio.run(_load(port, records, connections, {"good": 0, "bad": 0}, orders))


def print_requests(seconds: float, connections: int) -> None:
    from servers.ingest import ingest_process

    from micromegas.config import LakeSettings

    print(f"{'records':>7}  {'server':<16} {'req/CPU-s':>10} {'of bare':>8} {'CPU ms':>7} {'records/CPU-s':>14}")
    for records in RECORDS_OF_A_REQUEST:
        bare_rate = 0.0
        for name in ("bare handler", "sqlite + folder"):
            with tempfile.TemporaryDirectory(prefix="mm-bench-") as folder:
                bare = name == "bare handler"
                server: Any = bare_process() if bare else ingest_process(LakeSettings(lake_dir=Path(folder)))
                with server as (process, port):
                    pid = process if isinstance(process, int) else process.pid
                    rate, _, _ = measure(
                        pid,
                        port,
                        size=records,
                        seconds=seconds,
                        connections=connections,
                        database_pid=None,
                        load=generate_load,
                    )
            bare_rate = bare_rate or rate
            print(
                f"{records:>7}  {name:<16} {rate:>10,.0f} {rate / bare_rate:>8.1%} {1000 / rate:>7.3f} "
                f"{rate * records:>14,.0f}",
                flush=True,
            )


def print_decoding(records: int) -> None:
    from otlp_data.blocks import source

    from micromegas._engine import LogEntriesBuilder, MeasuresBuilder, OtelSpansBuilder
    from micromegas.wire.otlp import Signal, decode_otlp

    count = max(1, records // RECORDS_OF_A_BLOCK)
    made: dict[Signal, tuple[Any, Any]] = {
        "logs": (LogEntriesBuilder, [logs_request(RECORDS_OF_A_BLOCK, str(index)) for index in range(count)]),
        "metrics": (MeasuresBuilder, [metrics_request(RECORDS_OF_A_BLOCK) for _ in range(count)]),
        "traces": (OtelSpansBuilder, [traces_request(RECORDS_OF_A_BLOCK) for _ in range(count)]),
    }
    print(f"\n{'records':<8} {'bytes each':>10} {'official parser':>16} {'cut':>7} {'rows':>7}  rows / parser")
    for signal, (make, requests) in made.items():
        bodies = [request.SerializeToString() for request in requests]
        message = type(requests[0])
        sources = [
            source(signal, bytes(each.message))
            for body in bodies
            for each in decode_otlp(signal, body, is_json=False, max_bytes=len(body))
        ]

        def parse(message: Any = message, bodies: list[bytes] = bodies) -> None:
            for body in bodies:
                message.FromString(body)

        def cut(signal: Signal = signal, bodies: list[bytes] = bodies) -> None:
            for body in bodies:
                decode_otlp(signal, body, is_json=False, max_bytes=len(body))

        def rows(make: Any = make, sources: list[Any] = sources) -> None:
            builder = make()
            for each in sources:
                builder.append(each)
            builder.take()

        per_million = 1e6 / (count * RECORDS_OF_A_BLOCK)
        parser, cutting, building = (best_cpu_seconds(work, REPEAT) * per_million for work in (parse, cut, rows))
        size = sum(map(len, bodies)) / (count * RECORDS_OF_A_BLOCK)
        print(
            f"{signal:<8} {size:>10.0f} {parser:>15.3f}s {cutting:>6.3f}s {building:>6.3f}s  {building / parser:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--records", type=int, default=200_000)
    arguments = parser.parse_args()
    print_requests(arguments.seconds, arguments.connections)
    print_decoding(arguments.records)


if __name__ == "__main__":
    main()
