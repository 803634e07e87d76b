"""WSGI middleware: each request is an async span, with its duration as a measure.

Must never change what is answered, and never swallow an exception.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from micromegas.record.served_request import ServedRequest

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiMiddleware:
    """`app.wsgi_app = mm.WsgiMiddleware(app.wsgi_app)` (Flask), `app = mm.WsgiMiddleware(app)` around any.

    As `AsgiMiddleware`; the span lasts until the body is closed. WSGI has no place for routes: Flask's is found, for
    others `route` may be a function of the environ that gives the pattern or None, called when the answer begins and
    when it ends.
    """

    def __init__(
        self, app: App, *, log_requests: bool = False, route: Callable[[Environ], str | None] | None = None
    ) -> None:
        self._app = app
        self._log_requests = log_requests
        self._route = route or _route_of_werkzeug

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = str(environ.get("REQUEST_METHOD", ""))
        path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
        request = ServedRequest.begin(method, path, environ.get("HTTP_TRACEPARENT"), self._log_requests)
        if request is None:
            return self._app(environ, start_response)
        answer = _Answer(request, environ, self._route)

        def start_and_see(status: str, *arguments: Any, **keywords: Any) -> Any:
            answer.start(status)
            return start_response(status, *arguments, **keywords)

        request.enter()
        try:
            body = self._app(environ, start_and_see)
        except BaseException:
            answer.end(500)
            raise
        finally:
            request.leave()
        if isinstance(body, (list, tuple)):  # servers look at its length; nothing more will be computed for it
            answer.end()
            return body
        return _Body(body, answer)


class _Answer:
    """What is known of the answer, and its end."""

    def __init__(self, request: ServedRequest, environ: Environ, route: Callable[[Environ], str | None]) -> None:
        self.request = request
        self._status: int | None = None
        self._environ = environ
        self._route_of = route
        self._route: str | None = None

    def start(self, status: str) -> None:
        code = str(status)[:3]  # what is no text is the server's to refuse
        self._status = int(code) if code.isdecimal() and code.isascii() else None
        self._find_route()

    def _find_route(self) -> None:
        try:
            self._route = self._route_of(self._environ) or self._route
        except Exception:
            return  # a function of the program's own; the request shall not fail with it

    def end(self, status: int | None = None) -> None:
        self._find_route()
        self.request.end(self._route, status or self._status)


class _Body:
    """An answer's parts, each computed for the request, the last of which ends it."""

    def __init__(self, body: Iterable[bytes], answer: _Answer) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._answer = answer

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        self._answer.request.enter()
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)
        except StopIteration:
            raise
        except BaseException:
            self._answer.end(500)
            raise
        finally:
            self._answer.request.leave()

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._answer.end()

    def __del__(self) -> None:
        self._answer.end()  # a server that does not call `close`


def _route_of_werkzeug(environ: Environ) -> str | None:
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    found = getattr(rule, "rule", None)
    return found if isinstance(found, str) else None
