"""The ASGI and WSGI middlewares around applications of every manner; frameworks are in tests/frameworks."""

import asyncio
import gc

import pytest

import micromegas as mm
from micromegas.testing import capture

TRACE, SPAN = "ab" * 16, "cd" * 8
HEADER = f"00-{TRACE}-{SPAN}-01"


class Route:
    path = "/items/{item}"


async def call(app, scope=None, messages=()):
    """What an ASGI server does with one request; gives what was sent."""
    waiting, sent = list(messages), []

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "GET", "path": "/items/7", "headers": [], **(scope or {})}, receive, send)
    return sent


async def answer(send, status=200, parts=(b"x",)):
    await send({"type": "http.response.start", "status": status, "headers": []})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def durations(events):
    """Of requests; a collection of garbage may have been measured meanwhile."""
    return [measure for measure in events.metrics if measure.name == "http.server.duration"]


def measures(events):
    return [tuple(m.properties[key] for key in ("method", "route", "status")) for m in durations(events)]


def test_asgi_request():
    async def app(scope, receive, send):
        scope["route"] = Route
        async with mm.span("inside"):
            await asyncio.gather(*(task() for _ in range(2)))
        assert mm.traceparent().startswith(f"00-{TRACE}-")
        await answer(send)

    async def task():
        async with mm.span("task"):
            await asyncio.sleep(0)

    with capture() as events:
        wrapped = mm.AsgiMiddleware(app, log_requests=True)
        sent = asyncio.run(call(wrapped, {"headers": [(b"traceparent", HEADER.encode())], "query_string": b"secret=1"}))
    assert [message["type"].rpartition(".")[2] for message in sent] == ["start", "body", "body"]
    [served] = events.async_spans
    assert (served.name, served.parent_id, served.target) == ("GET", int(SPAN, 16), "micromegas.http")
    assert [span.name for span in served.walk()] == ["GET", "inside", "task", "task"]
    assert measures(events) == [("GET", "/items/{item}", "200")]
    assert durations(events)[0].unit == "ms"
    [log] = events.logs
    assert log.message.startswith("GET /items/7 200 ")
    assert log.properties == {"route": "/items/{item}", "span_id": str(served.id)}


def test_asgi_requests_beside_each_other_have_their_own_traces():
    async def app(scope, receive, send):
        await asyncio.sleep(0)
        async with mm.span(scope["path"]):
            traces.append(mm.traceparent().split("-")[1])
            await asyncio.sleep(0)
        await answer(send)

    async def main():
        wrapped = mm.AsgiMiddleware(app)
        await asyncio.gather(*(call(wrapped, {"path": f"/{n}"}) for n in range(20)))
        assert mm.traceparent() is None

    traces = []
    with capture() as events:
        asyncio.run(main())
    assert [[child.name for child in span.children] for span in events.async_spans] == [[f"/{n}"] for n in range(20)]
    assert len(set(traces)) == 20


@pytest.mark.parametrize(
    ("scope", "status"), [({}, "500"), ({"answered": 200}, "200")], ids=["before the answer", "after its begin"]
)
def test_asgi_exceptions_pass(scope, status):
    async def app(scope, receive, send):
        if "answered" in scope:
            await send({"type": "http.response.start", "status": scope["answered"]})
        raise LookupError("mine")

    with capture() as events, pytest.raises(LookupError, match="mine"):
        asyncio.run(call(mm.AsgiMiddleware(app), scope))
    assert measures(events) == [("GET", "", status)]
    assert all(span.end is not None for span in events.async_spans)


def test_asgi_cancellation_and_disconnect():
    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def stuck(scope, receive, send):
        await asyncio.sleep(3600)

    async def main():
        await call(mm.AsgiMiddleware(endless), messages=[{"type": "http.request"}] * 3)
        task = asyncio.create_task(call(mm.AsgiMiddleware(stuck)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture() as events:
        asyncio.run(main())
    assert measures(events) == [("GET", "", "200"), ("GET", "", "none")]
    assert [span.end is not None for span in events.async_spans] == [True, True]


def test_asgi_websocket_lifespan_and_odd_methods():
    async def app(scope, receive, send):
        seen.append(scope["type"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "http":
            await answer(send, 405)

    seen = []
    wrapped = mm.AsgiMiddleware(app)
    with capture() as events:
        for scope in ({"type": "lifespan"}, {"type": "websocket", "method": "GET"}, {"method": "\udc00 EVIL"}):
            if scope.get("type") == "websocket":
                del scope["method"]
            asyncio.run(call_exactly(wrapped, scope))
    assert seen == ["lifespan", "websocket", "http"]
    assert measures(events) == [("WEBSOCKET", "", "101"), ("OTHER", "", "405")]


async def call_exactly(app, scope):
    async def send(message):
        pass

    await app({"type": "http", "path": "/", **scope}, None, send)


def test_asgi_without_recording_is_the_application():
    async def app(scope, receive, send):
        await answer(send)

    assert mm.status() is None
    assert len(asyncio.run(call(mm.AsgiMiddleware(app)))) == 3


# ---- WSGI


def serve(app, environ=None, *, close=True, parts=None):
    """What a WSGI server does with one request; gives status and body."""
    started = []
    body = app(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "/shop",
            "PATH_INFO": "/items/7",
            "QUERY_STRING": "s=1",
            **(environ or {}),
        },
        lambda status, headers, exc_info=None: started.append(status),
    )
    received = []
    try:
        for part in body:
            received.append(part)
            if parts is not None and len(received) >= parts:
                break
    finally:
        if close and hasattr(body, "close"):
            body.close()
    return started, received


def test_wsgi_request():
    def app(environ, start_response):
        start_response("201 Created", [])
        assert mm.traceparent().startswith(f"00-{TRACE}-")
        return [b"a", b"b"]

    with capture() as events:
        wrapped = mm.WsgiMiddleware(app, log_requests=True, route=lambda environ: "/items/<item>")
        assert serve(wrapped, {"HTTP_TRACEPARENT": HEADER}) == (["201 Created"], [b"a", b"b"])
        assert mm.traceparent() is None
    [served] = events.async_spans
    assert (served.name, served.parent_id) == ("GET", int(SPAN, 16))
    assert measures(events) == [("GET", "/items/<item>", "201")]
    assert events.logs[0].message.startswith("GET /shop/items/7 201 ")


@pytest.mark.parametrize("way", ["to its end", "closed early", "never closed"])
def test_wsgi_bodies_that_are_computed_late(way):
    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            try:
                for number in range(5):
                    traces.append(mm.traceparent().split("-")[2])
                    yield str(number).encode()
            finally:
                closed.append(True)

        return body()

    traces, closed = [], []
    with capture() as events:
        parts = None if way == "to its end" else 2
        _, received = serve(mm.WsgiMiddleware(app), close=way != "never closed", parts=parts)
        assert mm.traceparent() is None
        gc.collect()
    [served] = events.async_spans
    assert len(received) == len(traces) == (parts or 5)
    assert set(traces) == {f"{served.id:016x}"}
    assert closed == [True]
    assert served.end is not None
    assert measures(events) == [("GET", "", "200")]


@pytest.mark.parametrize("late", [False, True])
def test_wsgi_exceptions_pass(late):
    def app(environ, start_response):
        if not late:
            raise LookupError("mine")
        start_response("200 OK", [])
        return broken_body()

    def broken_body():
        yield b"x"
        raise LookupError("mine")

    with capture() as events, pytest.raises(LookupError, match="mine"):
        serve(mm.WsgiMiddleware(app))
    assert measures(events) == [("GET", "", "500")]
    assert len(events.async_spans) == 1


def test_wsgi_a_route_function_that_fails():
    def app(environ, start_response):
        start_response("nonsense", [])
        return ()

    def route(environ):
        raise RuntimeError("no route")

    with capture() as events:
        serve(mm.WsgiMiddleware(app, route=route), {"REQUEST_METHOD": ""})
    assert measures(events) == [("OTHER", "", "none")]


@pytest.mark.parametrize(("status", "measured"), [(200, "200"), ("²00 OK", "none"), ("", "none"), (None, "none")])
def test_wsgi_a_status_that_is_none_is_the_servers_to_refuse(status, measured):
    def app(environ, start_response):
        start_response(status, [])
        return ()

    with capture() as events:
        assert serve(mm.WsgiMiddleware(app)) == ([status], [])
    assert measures(events) == [("GET", "", measured)]


def test_asgi_headers_that_are_none():
    async def app(scope, receive, send):
        await answer(send)

    with capture() as events:
        assert len(asyncio.run(call(mm.AsgiMiddleware(app), {"headers": None}))) == 3
    assert measures(events) == [("GET", "", "200")]
