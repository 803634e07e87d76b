"""A server that isn't there, comes back, or goes away: tried again while no row has come, told otherwise."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import flight
from servers.ports import free_port

from micromegas.client import Client, ClientError, QueryFailed, ServerUnreachable


class Failing(flight.FlightServerBase):
    """Says `failures` times that it is not available, then gives one row; or breaks off after the first row."""

    def __init__(self, failures: int, *, midway: bool = False, refuse: bool = False, port: int = 0) -> None:
        super().__init__(f"grpc://127.0.0.1:{port}")
        self.calls = 0
        self._failures = failures
        self._midway = midway
        self._refuse = refuse

    def do_get(self, context, ticket):
        self.calls += 1
        if self._refuse:
            raise pa.ArrowInvalid("wrong statement")
        if self.calls <= self._failures and not self._midway:
            raise flight.FlightUnavailableError("starting")
        schema = pa.schema([("n", pa.int64())])

        def batches():
            yield pa.record_batch([pa.array([1])], schema)
            if self._midway:
                raise flight.FlightUnavailableError("going")

        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(schema, batches()))


def asked(server: Failing, retries: int) -> pa.Table:
    with server, Client(f"grpc://127.0.0.1:{server.port}", retries=retries) as client:
        return client.query("SELECT 1")


def test_a_server_that_starts_is_asked_again() -> None:
    server = Failing(2)
    assert asked(server, 3).num_rows == 1
    assert server.calls == 3


def test_no_more_often_than_said() -> None:
    server = Failing(5)
    with pytest.raises(ServerUnreachable, match="starting"):
        asked(server, 1)
    assert server.calls == 2


def test_rows_never_come_twice() -> None:
    server = Failing(1, midway=True)
    with pytest.raises(ClientError, match="going"):
        asked(server, 3)
    assert server.calls == 1


def test_what_the_server_refuses_is_not_asked_again() -> None:
    server = Failing(0, refuse=True)
    with pytest.raises(QueryFailed, match="wrong statement"):
        asked(server, 3)
    assert server.calls == 1


def test_a_server_that_comes_back_is_found() -> None:
    """Refused at first, as by a server that restarts."""
    port = free_port()
    with Client(f"grpc://127.0.0.1:{port}", retries=0) as client:
        with pytest.raises(ServerUnreachable):
            client.query("SELECT 1")
        client.retries = 20
        with Failing(0, port=port):
            assert client.query("SELECT 1").num_rows == 1
