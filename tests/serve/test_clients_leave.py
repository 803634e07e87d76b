"""Clients that leave in the middle of a long aggregate, which says nothing meanwhile, by each door; and clients of
which nothing is heard any more."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_gateway.raw import RawClient, cancel, message, state_of, text
from pyarrow import flight
from serve.conftest import wait_until
from serve.doors import Doors, open_doors

from micromegas.config import QuerySettings
from micromegas.serve.flight import messages
from micromegas.serve.workers.remains import engine_threads_at_work

# of the lake, so that the gateway doesn't leave it to its catalogue
AGGREGATE = (
    "SELECT value % 1000 AS k, count(*), (SELECT count(*) FROM blocks) AS n "
    "FROM generate_series(1, 1000000000000) GROUP BY 1"
)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Which give a query more time than any test has."""
    query = QuerySettings(statement_timeout_s=3600.0)
    with open_doors(tmp_path_factory.mktemp("lake") / "lake", query, ingest=None) as opened:
        yield opened


def is_computing() -> bool:
    """Whether a thread of the engine is at work, now and a little later."""
    for _ in range(4):
        if not engine_threads_at_work():
            return False
        time.sleep(0.05)
    return True


def flight_cancelled(doors: Doors) -> Callable[[], None]:
    client = flight.connect(f"grpc://127.0.0.1:{doors.ports['queries']}")
    reader = client.do_get(flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=AGGREGATE.encode())))

    def leave() -> None:
        reader.cancel()
        client.close()

    return leave


def closed(connection: socket.socket, close: Callable[[], None], linger: bytes | None) -> Callable[[], None]:
    def leave() -> None:
        if linger is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        close()

    return leave


def http_closed(doors: Doors, linger: bytes | None = None) -> Callable[[], None]:
    client = http.client.HTTPConnection("127.0.0.1", doors.ports["api"], timeout=60)
    client.request("POST", "/api/query", json.dumps({"sql": AGGREGATE}), {"content-type": "application/json"})
    return closed(client.sock, client.close, linger)


def http_reset(doors: Doors) -> Callable[[], None]:
    return http_closed(doors, RESET)


def gateway_closed(doors: Doors, linger: bytes | None = None) -> Callable[[], None]:
    client = RawClient(doors.ports["postgresql"])
    client.start()
    client.send(message(b"Q", text(AGGREGATE)))
    return closed(client.socket, client.__exit__, linger)


def gateway_reset(doors: Doors) -> Callable[[], None]:
    return gateway_closed(doors, RESET)


def gateway_cancelled(doors: Doors) -> Callable[[], None]:
    # not psycopg: the server is a thread of this process, and libpq waits for it with the interpreter's lock in hand
    client = RawClient(doors.ports["postgresql"])
    key = client.start()
    client.send(message(b"Q", text(AGGREGATE)))

    def leave() -> None:
        cancel(doors.ports["postgresql"], key)
        [error] = [body for kind, body in client.until(b"Z") if kind == b"E"]
        assert state_of(error) == "57014"
        client.__exit__()

    return leave


@pytest.mark.parametrize(
    "way", [flight_cancelled, http_closed, http_reset, gateway_closed, gateway_reset, gateway_cancelled]
)
def test_who_leaves_frees_the_query(doors: Doors, way: Callable[[Doors], Callable[[], None]]) -> None:
    assert not is_computing()
    leave = way(doors)
    wait_until(is_computing)
    assert doors.node.engine.work_in_hand.running > 0
    before = time.process_time()
    leave()
    wait_until(lambda: doors.node.engine.work_in_hand.running == 0 and not engine_threads_at_work())
    # as much as all cores do in a second, whoever else uses them
    assert time.process_time() - before <= (os.cpu_count() or 1)
    assert set(doors.refusals("SELECT 1 AS one").values()) == {""}


@pytest.mark.parametrize("role", ["api", "postgresql"])
def test_the_kernel_asks_silent_clients_whether_they_are_there(doors: Doors, role: str) -> None:
    with socket.create_connection(("127.0.0.1", doors.ports[role]), timeout=60) as client:
        ours = f":{client.getsockname()[1]:04X}"
        wait_until(lambda: keepalive_s(ours) is not None)
        waits = keepalive_s(ours)
        assert waits is not None
        assert 0 < waits <= 60


def keepalive_s(peer: str) -> float | None:
    """Seconds until the kernel asks a peer with this port whether it lives; None where it won't."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        kind, _, jiffies = fields[5].partition(":")
        if fields[2].endswith(peer) and kind == "02":
            return int(jiffies, 16) / os.sysconf("SC_CLK_TCK")
    return None
