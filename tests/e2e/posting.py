"""A sender for tests: request bodies over HTTP on one or several connections. Retries nothing unless told."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from e2e.recordings import Request

TIMEOUT_S = 60.0
PASSING = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    text: str


class Sender:
    """One keep-alive connection to the ingestion service, opened again whenever it was lost; over TLS where a `ca_file`
    vouches for it."""

    def __init__(self, port: int, ca_file: str | None = None) -> None:
        self._port = port
        self._ca_file = ca_file
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> Answer:
        """One request; raises `OSError` or `HTTPException` when no answer came."""
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        if self._connection is None:
            self._connection = self._opened()
        try:
            self._connection.request(method, path, body)
            response = self._connection.getresponse()
            return Answer(response.status, response.read().decode("utf-8", "backslashreplace"))
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def _opened(self) -> http.client.HTTPConnection:
        if self._ca_file is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        trusting = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection("localhost", self._port, timeout=TIMEOUT_S, context=trusting)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def post_all(port: int, requests: Sequence[Request], connections: int = 1, ca_file: str | None = None) -> list[Answer]:
    """Post requests, the answers in their order; with several connections they overtake each other."""
    local = threading.local()
    senders: list[Sender] = []

    def post(request: Request) -> Answer:
        if not hasattr(local, "sender"):
            local.sender = Sender(port, ca_file)
            senders.append(local.sender)
        sender: Sender = local.sender
        while True:
            answer = sender.post(request.path, request.body)
            if answer.status != PASSING:
                return answer
            time.sleep(0.02)

    with ThreadPoolExecutor(connections) as pool:
        try:
            return list(pool.map(post, requests))
        finally:
            for sender in senders:
                sender.close()


def assert_all_accepted(requests: Iterable[Request], answers: Iterable[Answer]) -> None:
    refused = [(each.path, answer) for each, answer in zip(requests, answers, strict=True) if answer.status != 200]
    assert not refused, refused[:5]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Return once a condition holds; `AssertionError` when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.1)
