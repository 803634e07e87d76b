"""Requests to a server of queries over HTTP, and what comes back."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.conftest import RunningApi


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def rows(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code; the text must be clean."""
        told = json.loads(self.body)
        assert set(told) == {"code", "message"}
        for trace in ("Traceback", ".py", ".rs", "/home"):
            assert trace not in told["message"]
        return self.status, told["code"]

    @property
    def message(self) -> str:
        text: str = json.loads(self.body)["message"]
        return text


def call(
    api: RunningApi, method: str, path: str, body: bytes = b"", *, tls: ssl.SSLContext | None = None, **headers: str
) -> Reply:
    """Over TLS with a context of who is trusted; names of headers are written with underscores."""
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", api.port, timeout=60, context=tls)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def post(
    api: RunningApi, document: Any, path: str = "/api/query", *, tls: ssl.SSLContext | None = None, **headers: str
) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return call(api, "POST", path, body, tls=tls, **{"content_type": "application/json", **headers})
