"""The page on this machine to which an identity provider sends the browser back. Answers once, to who began."""

from __future__ import annotations

import hmac
import queue
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from micromegas.client.errors import SignInRefused
from micromegas.wire.printable import printable

_DONE = "You are signed in. This page may be closed."
_NOT_DONE = "The sign-in failed: see where you began it."


class RedirectListener:
    """Listens at `redirect_uri`, an address of this machine (port 0 takes a free one), for the answer that carries
    `state`. A context manager."""

    def __init__(self, redirect_uri: str, state: str) -> None:
        """Raises `SignInRefused` for an address that can't be had."""
        host, port, path = _place(redirect_uri)
        answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

        class Handler(BaseHTTPRequestHandler):
            # a connection that a browser opened in advance
            timeout = 30

            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                given = {name: values[0] for name, values in parse_qs(asked.query).items()}
                # pages of others may ask here, too: who doesn't know the state isn't answered
                if asked.path != path or not hmac.compare_digest(given.get("state", "").encode(), state.encode()):
                    self.send_error(404)
                    return
                text = (_DONE if "code" in given else _NOT_DONE).encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; charset=utf-8")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                answers.put(given)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if host == "::1" else socket.AF_INET
            daemon_threads = True

        try:
            self._server = Server(("::1" if host == "::1" else "127.0.0.1", port), Handler)
        except OSError as error:
            reason = error.strerror or error
            next_step = "set MICROMEGAS_OIDC_REDIRECT_URI to another that the provider knows"
            raise SignInRefused(f"redirect_uri {redirect_uri}: can't be listened to: {reason}; {next_step}") from None
        name = f"[{host}]" if host == "::1" else host
        self.redirect_uri = f"http://{name}:{self._server.server_address[1]}{path}"
        self._answers = answers
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def code(self, seconds: float) -> str:
        """The authorization code, waited for; raises `SignInRefused` when the provider or the person refused."""
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise SignInRefused(f"nobody signed in within {seconds:g} s") from None
        if "code" not in answer:
            reason = answer.get("error_description") or answer.get("error") or "no reason given"
            raise SignInRefused(f"the sign-in failed: {printable(reason)[:300]}")
        return answer["code"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _place(redirect_uri: str) -> tuple[str, int, str]:
    """Host, port and path of an address of this machine; `SignInRefused` for any other."""
    try:
        parts = urlsplit(redirect_uri)
        if parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1") and parts.port is not None:
            return parts.hostname, parts.port, parts.path or "/"
    except ValueError:
        pass  # a port that is none
    raise SignInRefused(f"redirect_uri {redirect_uri}: not an http address of this machine with a port")
