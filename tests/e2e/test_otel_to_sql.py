"""What instrumented code tells the OpenTelemetry API, as rows in SQL, in both encodings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from e2e.answers import properties_of, records
from e2e.serving import Service, serving

from micromegas.config import LakeSettings

REMOTE_TRACE, REMOTE_SPAN = "ab" * 16, 0x0123456789ABCDEF
PROGRAM = f"""
import json
import micromegas as mm
from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import SpanKind, StatusCode

mm.install_otel()
process_id = mm.init(process_name="otel", level="trace", gauge_period=3600)
tracer = trace.get_tracer("shop.checkout", "1.2")
incoming = extract({{"traceparent": "00-{REMOTE_TRACE}-{REMOTE_SPAN:016x}-01"}})
outgoing = {{}}
with tracer.start_as_current_span("GET /cart", context=incoming, kind=SpanKind.SERVER) as served:
    served.set_attribute("http.route", "/cart")
    for number in range(3):
        with tracer.start_as_current_span("query", attributes={{"n": number, "tables": ["a", "é"]}}) as query:
            query.add_event("cache missed", {{"key": number}})
    inject(outgoing)
    get_logger("shop.log", "3").emit(severity_number=SeverityNumber.WARN, body="stock is low", attributes={{"sku": 7}})
try:
    with tracer.start_as_current_span("pay"):
        raise KeyError("card")
except KeyError:
    pass
meter = metrics.get_meter("shop.meter")
sold = meter.create_counter("sold", unit="items")
active = meter.create_up_down_counter("active")
size = meter.create_histogram("size", unit="By")
level = meter.create_gauge("level", unit="m")
meter.create_observable_gauge("temperature", [lambda options: [metrics.Observation(21.5, {{"room": "b"}})]], unit="Cel")
for amount in (2, 3):
    sold.add(amount, {{"where": "a"}})
for amount in (1, 1, -1):
    active.add(amount)
for amount in (2.5, 7, 2**53):
    size.record(amount, {{"kind": "k"}})
level.set(-3)
metrics.get_meter_provider().observe()
assert mm.flush(30)
print(json.dumps({{"process_id": process_id, "outgoing": outgoing["traceparent"], "status": mm.status()}}))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of the program, and the server that has its telemetry."""

    service: Service
    said: dict[str, Any]

    def ask(self, sql: str) -> list[dict[str, Any]]:
        return records(self.service.query(sql.replace("{process}", self.said["process_id"]), ranged=True))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as started:
        yield started


@pytest.fixture(scope="module", params=["columns", "transit"])
def run(service: Service, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    program = tmp_path_factory.mktemp(request.param) / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MICROMEGAS_", "OTEL_"))}
    environment = inherited | {
        "MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}",
        "MICROMEGAS_ENCODING": request.param,
    }
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    said = json.loads(done.stdout)
    assert (said["status"]["lost_events"], said["status"]["refused_values"]) == (0, 0)
    return Run(service, said)


def test_spans(run: Run) -> None:
    rows = run.ask("SELECT * FROM view_instance('async_events', '{process}') ORDER BY time")
    begins = {row["span_id"]: row for row in rows if row["event_type"] == "begin"}
    assert len(rows) == 2 * len(begins)
    assert {row["target"] for row in rows} == {"shop.checkout"}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in begins.values():
        by_name.setdefault(row["name"], []).append(row)
    assert {name: len(found) for name, found in by_name.items()} == {"GET /cart": 1, "query": 3, "pay": 1}
    [served], [pay] = by_name["GET /cart"], by_name["pay"]
    assert (served["parent_span_id"], pay["parent_span_id"]) == (REMOTE_SPAN, 0)
    assert {row["parent_span_id"] for row in by_name["query"]} == {served["span_id"]}
    assert run.said["outgoing"] == f"00-{REMOTE_TRACE}-{served['span_id']:016x}-01"


def test_what_has_no_place_in_a_span(run: Run) -> None:
    """Attributes, events, status and exceptions, joined by the id of the span."""
    rows = run.ask(
        "SELECT s.name, l.level, l.target, l.msg, l.properties FROM log_entries l "
        "JOIN view_instance('async_events', '{process}') s "
        "ON property_get(l.properties, 'span_id') = CAST(s.span_id AS VARCHAR) "
        "WHERE l.process_id = '{process}' AND s.event_type = 'begin' ORDER BY l.time"
    )
    found = []
    for row in rows:
        properties = dict(properties_of(row["properties"]))
        trace = properties.pop("trace_id")
        del properties["span_id"]
        if row["name"] != "pay":
            assert trace == REMOTE_TRACE
        found.append((row["name"], row["target"], row["level"], row["msg"].split("\n")[0], properties))
    scope = {"scope.version": "1.2"}
    expected: list[tuple[str, str, int, str, dict[str, str]]] = []
    for number in range(3):
        expected += [
            ("query", "shop.checkout", 4, "cache missed", {"key": str(number)}),
            ("query", "shop.checkout", 5, "query", scope | {"n": str(number), "tables": '["a", "é"]'}),
        ]
    expected += [
        ("GET /cart", "shop.log", 3, "stock is low", {"scope.version": "3", "sku": "7"}),
        ("GET /cart", "shop.checkout", 5, "GET /cart", scope | {"http.route": "/cart", "span.kind": "server"}),
        (
            "pay",
            "shop.checkout",
            2,
            "pay",
            {"exception.type": "KeyError", "exception.message": "'card'"},
        ),
        (
            "pay",
            "shop.checkout",
            2,
            "pay",
            scope | {"span.status": "error", "span.status_description": "KeyError: 'card'"},
        ),
    ]
    assert found == expected
    count = run.ask("SELECT count(*) AS n FROM log_entries WHERE process_id = '{process}'")
    assert count == [{"n": len(expected)}]


def test_measures(run: Run) -> None:
    rows = run.ask("SELECT * FROM measures WHERE process_id = '{process}' AND target = 'shop.meter' ORDER BY time")
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[float]] = {}
    for row in rows:
        key = row["name"], row["unit"], tuple(sorted(properties_of(row["properties"])))
        values.setdefault(key, []).append(row["value"])
    sold = values.pop(("sold", "items", (("where", "a"),)))
    temperature = values.pop(("temperature", "Cel", (("room", "b"),)))
    assert sum(sold) == 5
    assert set(temperature) == {21.5}  # asked for by the program, and at first by the thread of the gauges
    assert values == {
        ("active", "", ()): [1.0, 2.0, 1.0],
        ("size", "By", (("kind", "k"),)): [2.5, 7.0, float(2**53)],
        ("level", "m", ()): [-3.0],
    }
