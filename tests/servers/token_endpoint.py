"""An identity provider's endpoint for client credentials, which says what a test wants."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLIENT_SECRET = "s3cr3t-that-must-not-show"


class TokenEndpoint:
    """Gives tokens `token 1`, `token 2` …, each with the answer of `answer(number, form)`."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[int, dict[str, str]], tuple[int, object]] = lambda number, form: (
            200,
            {"access_token": f"token-{number}", "expires_in": 3600, "token_type": "Bearer"},
        )
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                form = dict(urllib.parse.parse_qsl(text))
                owner.forms.append(form)
                self._answer(*owner.answer(len(owner.forms), form))

            def do_GET(self) -> None:
                found = self.path == "/realm/.well-known/openid-configuration"
                self._answer(200 if found else 404, {"token_endpoint": f"{owner.url}/token"})

            def _answer(self, status: int, answer: object) -> None:
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.environment = {
            "MICROMEGAS_OIDC_TOKEN_ENDPOINT": f"{self.url}/token",
            "MICROMEGAS_OIDC_CLIENT_ID": "recorder",
            "MICROMEGAS_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
