"""What `doctor` tells a server of HTTP that it only guessed to be one of ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers.json_http import JsonHandler
from servers.threaded_http import ThreadedHttpServer

from micromegas.cli.ports import http_queries, postgresql
from micromegas.client import StaticTokenAuthProvider

KEY = StaticTokenAuthProvider("secret-key")


class Neighbour(ThreadedHttpServer):
    """Answers every question with `status` and `answer`; `told` is what it was told of who asks."""

    def __init__(self) -> None:
        self.status, self.answer = 404, {}
        self.told: list[str | None] = []
        owner = self

        class Handler(JsonHandler):
            def do_POST(self) -> None:
                owner.told.append(self.headers["authorization"])
                self.body()
                self.answer(200 if owner.told[-1] == "Bearer secret-key" else owner.status, owner.answer)

        super().__init__(Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    running = Neighbour()
    yield running
    running.close()


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_stranger_at_the_usual_port_learns_no_key(neighbour: Neighbour, status: int) -> None:
    neighbour.status = status
    http_queries(None, "grpc://127.0.0.1:50051", KEY, neighbour.port)
    assert neighbour.told == [None]


def test_one_of_ours_there_is_asked_with_the_key(neighbour: Neighbour) -> None:
    neighbour.status, neighbour.answer = 401, {"code": "unauthenticated", "message": "a valid api key is needed"}
    assert http_queries(None, "grpc://127.0.0.1:50051", KEY, neighbour.port).found.endswith("answers queries")
    assert neighbour.told == [None, "Bearer secret-key"]
    assert http_queries(neighbour.url, "grpc://127.0.0.1:50051", KEY).found.endswith("answers queries")
    assert neighbour.told[2:] == ["Bearer secret-key"]


@pytest.mark.parametrize("scheme", ["", "postgresql://", "postgres://"])
def test_the_gateway_may_be_named_as_serve_tells_it(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as asker:
        asked = asker.submit(postgresql, f"{scheme}127.0.0.1:{listening.getsockname()[1]}")
        connection, _ = listening.accept()
        with connection:
            connection.recv(8)
            connection.sendall(b"N")
            assert asked.result(timeout=60).found.endswith("answers, without TLS")
