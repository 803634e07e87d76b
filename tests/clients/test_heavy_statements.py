"""Statements that are too long, too deep, or answer at length, against the real engine: refused or answered, never a
dead server."""

from __future__ import annotations

import pyarrow as pa
import pytest
from e2e.serving import Service

from micromegas.client import Client, QueryFailed


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
