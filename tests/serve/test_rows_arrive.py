"""Rows that pyarrow's own client reads are those that the engine gave, whatever columns and slices they lie in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from pyarrow import flight
from serve.test_flight_data import on_any_machine, streams

from micromegas.config import FlightSettings
from micromegas.query import QueryRequest
from micromegas.serve.edge_types import edge_schema
from micromegas.serve.flight import messages
from micromegas.serve.flight.server import FlightServer


class Given:
    """An engine whose one answer is given, and the server of it."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.port = 0

    async def execute(self, _: QueryRequest) -> Given:
        self.schema = self.batches[0].schema
        return self

    async def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        for batch in self.batches:
            yield batch

    async def aclose(self) -> None:
        pass

    def read(self, client: flight.FlightClient) -> pa.Table:
        ticket = messages.pack("TicketStatementQuery", statement_handle=b"all")
        return client.do_get(flight.Ticket(ticket)).read_all()


@pytest.fixture(scope="module")
def given_rows() -> Iterator[tuple[Given, flight.FlightClient]]:
    engine, loop = Given(), asyncio.new_event_loop()
    server = FlightServer(engine, FlightSettings(port=0, drain_timeout_s=0.2), "test", time.monotonic)  # type: ignore[arg-type]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        yield engine, client
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


@on_any_machine
@given(batches=streams())
def test_rows_arrive_as_they_were(given_rows: tuple[Given, flight.FlightClient], batches: list[pa.RecordBatch]) -> None:
    engine, client = given_rows
    engine.batches = batches
    received = engine.read(client)
    received.validate(full=True)
    source = pa.Table.from_batches(batches)
    assert received.schema == edge_schema(source.schema, preserve_dictionary=False)
    assert received.to_pylist() == source.to_pylist()
    assert received.num_rows == source.num_rows


def test_long_rows_arrive_in_parts(given_rows: tuple[Given, flight.FlightClient]) -> None:
    engine, client = given_rows
    rows = 300_001
    columns = {
        "numbers": pa.array([None if row % 7 == 0 else row for row in range(rows)], pa.int64()),
        "texts": pa.array([None if row % 5 == 0 else str(row) for row in range(rows)]),
        "bits": pa.array([None if row % 3 == 0 else row % 2 == 0 for row in range(rows)]),
        "nothing": pa.nulls(rows),
        "short": pa.array(range(rows), pa.int32()).cast(pa.float32()),
    }
    whole = pa.record_batch(columns)
    engine.batches = [whole.slice(3), whole.slice(100_003, 150_001)]
    received = engine.read(client)
    received.validate(full=True)
    assert received == pa.Table.from_batches(engine.batches)
    assert received.column("texts").num_chunks > 3
