"""Statements that are too long, too deep, or answer at length, against the real engine: refused or answered, never a
dead server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pyarrow as pa
import pytest
from e2e.serving import Service
from pyarrow import flight

from micromegas.client import Client, QueryFailed
from micromegas.serve.flight import messages

MIB = 1024 * 1024


@pytest.fixture
def service(folder_service: Service) -> Service:
    """Planning doesn't depend on the stores."""
    return folder_service


@pytest.fixture
def client(service: Service):
    with Client(f"grpc://127.0.0.1:{service.flight_port}") as connected:
        yield connected


HEAVY = {
    "ten thousand ors": "SELECT 1 WHERE " + " OR ".join(f"{n} = 0" for n in range(10_000)),
    "ten thousand pluses": "SELECT " + "+".join(["1"] * 10_000),
    "ten thousand concatenations": "SELECT " + "||".join(["'x'"] * 10_000),
    "ten thousand unions": " UNION ALL ".join(["SELECT 1"] * 10_000),
    "ten thousand parentheses": "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "ten thousand nots": "SELECT " + "NOT " * 10_000 + "true",
    "ten thousand minuses": "SELECT " + "- " * 10_000 + "1",
    "ten thousand cases": "SELECT " + "CASE WHEN true THEN " * 10_000 + "1" + " END" * 10_000,
    "two megabytes": "SELECT '" + "x" * 2_000_000 + "'",
    "two megabytes of comment": "SELECT 1 --" + "x" * 2_000_000,
    "an error that echoes a long name": "SELECT " + "n" * 100_000 + " FROM log_entries",
    "an error of wide characters": 'SELECT "' + "é☃𝄞" * 20_000 + '" FROM log_entries',
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_statements_are_refused_in_words(service: Service, client: Client, name: str) -> None:
    with pytest.raises(QueryFailed) as caught:
        client.query(HEAVY[name])
    assert 0 < len(str(caught.value)) <= 1500
    assert "metadata size" not in str(caught.value)
    assert client.query("SELECT 1 AS one").to_pydict() == {"one": [1]}
    service.assert_running()


def run_ticket(client: flight.FlightClient, sql: str) -> None:
    client.do_get(flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))).read_all()


def get_info(client: flight.FlightClient, sql: str) -> None:
    client.get_flight_info(flight.FlightDescriptor.for_command(messages.pack("CommandStatementQuery", query=sql)))


def prepare(client: flight.FlightClient, sql: str) -> None:
    body = messages.pack("ActionCreatePreparedStatementRequest", query=sql)
    list(client.do_action(flight.Action("CreatePreparedStatement", body)))


@pytest.mark.parametrize(
    ("ask", "megabytes"),
    [(run_ticket, 2), (get_info, 2), (prepare, 2), (prepare, 30), (get_info, 99), (run_ticket, 101)],
)
def test_statements_of_many_megabytes_are_refused_in_words(
    service: Service, ask: Callable[[flight.FlightClient, str], None], megabytes: int
) -> None:
    sql = "SELECT '" + "x" * (megabytes * MIB) + "'"
    expected = "statement of more than" if megabytes < 100 else "larger than max"
    with flight.connect(f"grpc://127.0.0.1:{service.flight_port}") as client:
        with pytest.raises(pa.ArrowException, match=expected):
            ask(client, sql)
        run_ticket(client, "SELECT 1 AS one")
    service.assert_running()


HALF_OPEN = {
    "nothing": b"",
    "half a greeting": b"PRI * HTTP/2.0\r\n",
    "a greeting": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "half a frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 100, 4, 0, 0, 0, 0, 0]) + b"\0" * 10,
    "headers that don't end": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    + bytes([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83]),
    "another protocol": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "garbage": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("name", HALF_OPEN)
def test_connections_that_get_stuck_keep_nobody_else_from_asking(service: Service, client: Client, name: str) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(100):
            stuck = opened.enter_context(socket.create_connection(("127.0.0.1", service.flight_port), 10))
            stuck.sendall(HALF_OPEN[name])
        assert client.query("SELECT 1 AS one").to_pydict() == {"one": [1]}
        with Client(f"grpc://127.0.0.1:{service.flight_port}") as another:
            assert another.query("SELECT 1 AS one").to_pydict() == {"one": [1]}
    service.assert_running()


def test_many_values_in_a_list_are_fine(client: Client) -> None:
    sql = f"SELECT count(*) AS n FROM log_entries WHERE level IN ({','.join(map(str, range(50_000)))})"
    assert client.query(sql).to_pydict()["n"][0] > 0


def test_a_long_answer_streams_whole(client: Client) -> None:
    with client.stream("SELECT value AS n, repeat('x', 1000) AS pad FROM generate_series(1, 100000)") as result:
        batches = list(result)
    assert sum(batch.num_rows for batch in batches) == 100_000
    assert max(batch.nbytes for batch in batches) <= 2 * 1024 * 1024 + 1024
    assert len(set(pa.Table.from_batches(batches).column("n").to_pylist())) == 100_000


def test_a_reader_may_leave_in_the_middle(service: Service, client: Client) -> None:
    for _ in range(20):
        with client.stream("SELECT value AS n, repeat('x', 1000) AS pad FROM generate_series(1, 100000000)") as result:
            assert next(iter(result)).num_rows > 0
    assert client.query("SELECT 1 AS one").num_rows == 1
    service.assert_running()
    assert "ERROR" not in service.log()
