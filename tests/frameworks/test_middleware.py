"""Our own middlewares under real frameworks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from record.conftest import Captured

REMOTE = int("cd" * 8, 16)


def ended_names(captured: Captured) -> Counter[str]:
    """Names of the async spans of requests at their ends."""
    events = captured.events("cpu")
    return Counter(event["name"] for event in events if event["$type"] == "EndAsyncNamedSpanEvent")


def answers(captured: Captured) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for event in captured.events("metrics"):
        if event["desc"]["name"] == "http.server.duration":
            properties = dict(event["properties"])
            found[properties["method"], properties["route"], properties["status"]] += 1
    return found


def remote_parents(captured: Captured) -> int:
    begins = [event for event in captured.events("cpu") if event["$type"] == "BeginAsyncNamedSpanEvent"]
    return sum(event["parent_span_id"] == REMOTE for event in begins)


def test_fastapi(run_app: Callable[..., Captured]) -> None:
    captured = run_app("asgi_middleware")
    assert ended_names(captured) == {"GET /items/{item}": 1, "GET /broken": 1, "WEBSOCKET /socket": 1}
    assert answers(captured) == {
        ("GET", "/items/{item}", "200"): 1,
        ("GET", "/broken", "500"): 1,
        ("WEBSOCKET", "/socket", "101"): 1,
    }
    assert remote_parents(captured) == 1
    assert "afterwards" in captured.messages()
    assert sum(message.startswith("GET /items/7 200 ") for message in captured.messages()) == 1


def test_flask(run_app: Callable[..., Captured]) -> None:
    captured = run_app("wsgi_middleware")
    assert ended_names(captured) == {"GET /items/<int:item>": 1, "GET /stream": 1, "GET": 1}
    assert answers(captured) == {
        ("GET", "/items/<int:item>", "200"): 1,
        ("GET", "/stream", "200"): 1,
        ("GET", "", "404"): 1,
    }
    assert remote_parents(captured) == 1


def test_gevent(run_app: Callable[..., Captured]) -> None:
    """Threads and idents that were replaced; requests that wait for each other in one thread."""
    captured = run_app("gevent_wsgi")
    events = captured.events("cpu")
    begins = [event for event in events if event["$type"] == "BeginAsyncNamedSpanEvent"]
    names = {event["span_id"]: event["name"] for event in begins}
    parents = {event["name"]: names.get(event["parent_span_id"]) for event in begins}
    assert parents == {"GET": None} | {f"outer {n}": "GET" for n in "abc"} | {f"inner {n}": f"outer {n}" for n in "abc"}
    logs = [event for event in captured.events("log") if event.get("msg", "").startswith("in ")]
    assert sorted((event["msg"], dict(event["properties"])["request"]) for event in logs) == [
        (f"in {name}", name) for name in "abc"
    ]
    assert "MainThread" in captured.threads()
