"""ASGI middleware: each request and each websocket is an async span, with its duration as a measure.

Must never change a message, hold one back, or swallow an exception.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from micromegas.record.served_request import ServedRequest

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AsgiMiddleware:
    """`app.add_middleware(mm.AsgiMiddleware)` (Starlette, FastAPI), or `app = mm.AsgiMiddleware(app)` around any.

    A span per request until the application returns, `GET /items/{item}` (the method until the route is known), below
    the client's `traceparent` if it sent one; the measure `http.server.duration` (ms) with the properties method, route
    and status. With `log_requests` also a log line, its path without the query, which may hold secrets.
    """

    def __init__(self, app: App, *, log_requests: bool = False) -> None:
        self._app = app
        self._log_requests = log_requests

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = str(scope.get("method", "WEBSOCKET"))
        header = next((value for name, value in scope.get("headers") or () if name == b"traceparent"), None)
        request = ServedRequest.begin(method, str(scope.get("path", "")), header, self._log_requests)
        if request is None:
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message.get("status")
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        request.enter()
        try:
            await self._app(scope, receive, send_and_see)
        except Exception:
            if status is None:
                status = 500  # what the server answers then
            raise
        finally:
            request.leave()
            request.end(_route(scope), status)


def _route(scope: MutableMapping[str, Any]) -> str | None:
    """The pattern, where the framework leaves its route in the scope, as Starlette and FastAPI do."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None
