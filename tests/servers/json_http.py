"""Requests of HTTP that are answered in JSON."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler


class JsonHandler(BaseHTTPRequestHandler):
    """Says nothing of what it is asked."""

    def answer(self, status: int, answer: object) -> None:
        """Bytes are sent as they are."""
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> str:
        return self.rfile.read(int(self.headers["content-length"])).decode()

    def log_message(self, format: str, *args: object) -> None:
        pass
