"""The OpenTelemetry project's instrumentations of frameworks on our providers: spans, parents, properties, measures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from record.conftest import Captured

REMOTE = int("cd" * 8, 16)
TRACE = "ab" * 16


def spans_of(captured: Captured) -> dict[str, dict[str, Any]]:
    """Async spans by name and id: their begin event, with the end's time; fails unless all are balanced."""
    begins, ends = {}, {}
    for event in captured.events("cpu"):
        if event["$type"].startswith("BeginAsync"):
            begins[event["span_id"]] = event
        elif event["$type"].startswith("EndAsync"):
            ends[event["span_id"]] = event
    assert begins.keys() == ends.keys()
    return {_name(event): event for event in begins.values()}


def _name(event: dict[str, Any]) -> str:
    return str(event["name"] if "name" in event else event["span_desc"]["name"])


def details_of(captured: Captured, span: dict[str, Any]) -> dict[str, str]:
    """Properties of the event that the span leaves at its end, or of several merged."""
    found: dict[str, str] = {}
    for event in captured.events("log"):
        properties = dict(event.get("properties", ()))
        if properties.get("span_id") == str(span["span_id"]):
            found |= properties
    return found


def route_of(details: dict[str, str]) -> str | None:
    return details.get("http.route")


def status_of(details: dict[str, str]) -> str | None:
    return details.get("http.response.status_code", details.get("http.status_code"))


def test_fastapi(run_app: Callable[..., Captured]) -> None:
    captured = run_app("fastapi_app")
    spans = spans_of(captured)
    served = spans["GET /items/{item}"]
    details = details_of(captured, served)
    assert served["parent_span_id"] == REMOTE
    assert details["trace_id"] == TRACE
    assert (route_of(details), status_of(details), details["span.kind"]) == ("/items/{item}", "200", "server")
    assert spans["look up"]["parent_span_id"] == served["span_id"]
    broken = details_of(captured, spans["GET /broken"])
    assert (broken["exception.type"], broken["span.status"]) == ("LookupError", "error")
    assert "GET /stream" in spans
    assert {name for name in ("http.server.duration", "http.server.request.duration") if captured.measures(name)}


def test_flask(run_app: Callable[..., Captured]) -> None:
    captured = run_app("flask_app")
    spans = spans_of(captured)
    served = spans["GET /items/<int:item>"]
    details = details_of(captured, served)
    assert served["parent_span_id"] == REMOTE
    assert (route_of(details), status_of(details)) == ("/items/<int:item>", "200")
    assert details["trace_id"] == TRACE
    broken = details_of(captured, spans["GET /broken"])
    assert (broken["exception.type"], status_of(broken)) == ("LookupError", "500")


def test_django(run_app: Callable[..., Captured]) -> None:
    captured = run_app("django_app")
    served = next(span for span in spans_of(captured).values() if span["parent_span_id"] == REMOTE)
    details = details_of(captured, served)
    assert (route_of(details), status_of(details), details["trace_id"]) == ("items/<int:item>", "200", TRACE)
    assert "LookupError" in {
        dict(event.get("properties", ())).get("exception.type") for event in captured.events("log")
    }


def test_requests_and_httpx(run_app: Callable[..., Captured]) -> None:
    captured = run_app("http_clients")
    events = [event for event in captured.events("cpu") if event["$type"].startswith("BeginAsync")]
    caller, *clients = sorted(events, key=lambda event: event["time"])
    assert _name(caller) == "caller"
    assert [event["parent_span_id"] for event in clients] == [caller["span_id"]] * 3
    [message] = [message for message in captured.messages() if message.startswith("seen ")]
    headers = json.loads(message.removeprefix("seen "))
    assert [int(header.split("-")[2], 16) for header in headers] == [event["span_id"] for event in clients]
    assert {header.split("-")[1] for header in headers} == {captured.processes[0]["process_id"].replace("-", "")}
    assert {status_of(details_of(captured, event)) for event in clients} == {"204"}


def test_sqlalchemy(run_app: Callable[..., Captured]) -> None:
    captured = run_app("sqlalchemy_app")
    spans = spans_of(captured)
    statements = {details_of(captured, span).get("db.statement") for span in spans.values()}
    assert "INSERT INTO shelf VALUES (1), (2)" in statements
    caller = spans.pop("caller")
    assert {span["parent_span_id"] for span in spans.values()} == {caller["span_id"]}
    assert [details_of(captured, span).get("span.status") for span in spans.values()].count("error") == 1


def test_celery(run_app: Callable[..., Captured]) -> None:
    captured = run_app("celery_app")
    spans = spans_of(captured)
    sent, ran = spans["apply_async/shop.pack"], spans["run/shop.pack"]
    assert sent["parent_span_id"] == spans["caller"]["span_id"]
    assert ran["parent_span_id"] == sent["span_id"]
    assert details_of(captured, ran)["trace_id"] == details_of(captured, sent)["trace_id"]
    assert details_of(captured, ran)["celery.state"] == "SUCCESS"
    failed = details_of(captured, spans["run/shop.fail"])
    assert (failed["span.status"], failed["exception.type"]) == ("error", "LookupError")


def test_logging(run_app: Callable[..., Captured]) -> None:
    captured = run_app("logging_app")
    [paid] = [event for event in captured.events("log") if event.get("msg") == "paid 12"]
    assert dict(paid["properties"])["span_id"] == str(spans_of(captured)["checkout"]["span_id"])
