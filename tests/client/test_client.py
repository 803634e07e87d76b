"""Our own client: tickets, times, results, and errors without the transport's chatter."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone

import pandas
import pyarrow as pa
import pytest
from e2e.serving import Service
from servers.ports import free_port

from micromegas.client import AddressInvalid, Client, QueryFailed, ServerUnreachable, StatementRefused
from micromegas.client.messages import statement_ticket
from micromegas.client.times import rfc3339
from micromegas.serve.flight.commands import unpack_ticket


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as connected:
        yield connected


@pytest.mark.parametrize("sql", ["", "SELECT 1", "é" * 63, "x" * 127, "x" * 128, "x" * 20_000, "\0"])
def test_the_ticket_is_what_protobuf_would_write(sql: str) -> None:
    command = unpack_ticket(statement_ticket(sql))
    assert command.name == "TicketStatementQuery"
    assert command.body.statement_handle == sql.encode()


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"),
        ("2023-11-14T17:13:20.1234567891-05:00", "2023-11-14T22:13:20.123456789Z"),
        ("2023-11-14", "2023-11-14T00:00:00Z"),
        (datetime(2023, 11, 14, tzinfo=UTC), "2023-11-14T00:00:00Z"),
        (datetime(2023, 11, 14, 0, 0, 0, 1, timezone(timedelta(hours=-5))), "2023-11-14T05:00:00.000001Z"),
        (pandas.Timestamp(1_700_000_000_123_456_789, tz="Europe/Paris"), "2023-11-14T22:13:20.123456789Z"),
    ],
)
def test_times(time: int | str | datetime, text: str) -> None:
    assert rfc3339(time) == text


def test_times_that_say_too_little_are_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        rfc3339(datetime(2023, 11, 14))
    with pytest.raises(ValueError, match="outside"):
        rfc3339(10**30)
    with pytest.raises(ValueError, match="too long ago"):
        rfc3339("-99999999999999d")


def test_rows_ranges_and_limits(client: Client) -> None:
    sql = "SELECT time, msg FROM log_entries ORDER BY time"
    rows = client.query(sql)
    times = rows.column("time").cast(pa.int64()).to_pylist()
    assert len(times) > 2
    assert client.query(sql, begin=times[1]).num_rows == len(times) - 1
    assert client.query(sql, begin=times[0], end=times[0]).num_rows == 1
    assert client.query(sql, end=times[-1] - 1).num_rows == len(times) - 1
    assert client.query(sql, limit=1).num_rows == 1
    with client.stream(sql) as result:
        assert result.schema == rows.schema
        assert sum(batch.num_rows for batch in result) == len(times)


def test_dictionaries_are_kept_on_request(service: Service) -> None:
    with Client(f"http://127.0.0.1:{service.flight_port}", preserve_dictionary=True) as client:
        table = client.query("SELECT target FROM log_entries")
    assert table.schema.field("target").type == pa.dictionary(pa.int32(), pa.string())


def test_errors_are_typed_and_free_of_chatter(client: Client) -> None:
    with pytest.raises(QueryFailed) as caught:
        client.query("SELECT nothing FROM log_entries")
    assert "nothing" in str(caught.value)
    for chatter in ("gRPC", "Client context", "Flight returned", "Detail:"):
        assert chatter not in str(caught.value)
    with pytest.raises(QueryFailed, match="zero"):
        client.query("SELECT 1 / (value - 5) FROM generate_series(1, 10)")
    with pytest.raises(ValueError, match="yesterday: no time"):
        client.query("SELECT 1", begin="yesterday")


def test_nobody_there() -> None:
    with Client(f"grpc://127.0.0.1:{free_port()}", retries=0) as client, pytest.raises(ServerUnreachable):
        client.query("SELECT 1")


@pytest.mark.parametrize("address", ["nonsense://x", "localhost:50051", "127.0.0.1:50051", "grpc://127.0.0.1:99999"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AddressInvalid, match="write it as grpc://host:port") as caught:
        Client(address)
    assert isinstance(caught.value, ValueError)


def test_values_keep_their_digits(client: Client) -> None:
    def sent(value: object) -> object:
        return client.query("SELECT CAST($1 AS TEXT) AS value", parameters=[value])["value"][0].as_py()

    assert sent(pandas.Timestamp("2026-01-02T03:04:05.123456789Z")) == "2026-01-02T03:04:05.123456789Z"
    assert sent(2**64 - 1) == str(2**64 - 1)
    with pytest.raises(TypeError, match="parameter 1"):
        sent(2**64)


def test_parameters_that_cannot_be(client: Client) -> None:
    assert client.query("SELECT 1 AS one", parameters=[])["one"].to_pylist() == [1]
    with pytest.raises(TypeError, match="a list or a mapping"):
        client.query("SELECT $1", parameters="a")
    for moment in (date(2026, 1, 1), 1.5, timedelta(hours=1)):
        with pytest.raises(TypeError, match=f"not a {type(moment).__name__}"):
            client.query("SELECT 1", begin=moment)  # type: ignore[arg-type]
    # a year is written with all of its digits
    with pytest.raises(StatementRefused, match=r"'0001-01-01T00:00:00Z'.*64 bits"):
        client.query("SELECT 1", begin=datetime(1, 1, 1, tzinfo=UTC))
