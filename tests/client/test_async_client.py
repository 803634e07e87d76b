"""The client for asyncio: same answers, many at once, and queries that end with whoever awaited them."""

from __future__ import annotations

import asyncio
import threading

import pandas
import polars
import pyarrow as pa
import pytest
from pyarrow import flight

import micromegas
from micromegas.client import AsyncFlightSQLClient, Client, StatementRefused

SCHEMA = pa.schema([("n", pa.int64())])


def test_the_same_answers(address: str) -> None:
    async def ask() -> None:
        async with micromegas.connect_async(address) as client:
            sql = "SELECT value AS n FROM generate_series(1, 100000) WHERE value <= $1"
            assert isinstance(await client.query(sql, parameters=[3]), pandas.DataFrame)
            assert isinstance(await client.query_polars(sql, parameters=[3]), polars.DataFrame)
            assert (await client.query_arrow(sql, parameters=[3]))["n"].to_pylist() == [1, 2, 3]
            assert (await client.query_arrow(sql, parameters=[3], limit=2)).num_rows == 2
            rows = [batch.num_rows async for batch in client.query_stream(sql, parameters=[100_000])]
            assert sum(rows) == 100_000
            statement = await client.prepare_statement(sql)
            assert (await client.query_arrow(statement, parameters=[2])).num_rows == 2
            with pytest.raises(StatementRefused, match="nothing"):
                await client.query("SELECT nothing FROM log_entries")
            many = await asyncio.gather(*(client.query_arrow(f"SELECT {number} AS n") for number in range(50)))
            assert [table["n"][0].as_py() for table in many] == list(range(50))

    asyncio.run(ask())


class Endless(flight.FlightServerBase):
    """Gives rows until its reader leaves; with `held`, none before that is set."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.asked = threading.Event()
        self.held = threading.Event()
        self.left = threading.Event()

    def do_get(self, context, ticket):
        self.asked.set()
        self.held.wait(60)

        def batches():
            try:
                while not context.is_cancelled():
                    yield pa.record_batch([pa.array([1] * 1000)], SCHEMA)
            finally:
                self.left.set()

        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(SCHEMA, batches()))


@pytest.mark.parametrize("planned", [True, False])
def test_a_cancelled_question_ends_on_the_server(planned: bool) -> None:
    async def ask(server: Endless) -> None:
        async with AsyncFlightSQLClient(Client(f"grpc://127.0.0.1:{server.port}"), threads=1) as client:
            if planned:
                server.held.set()
            asking = asyncio.ensure_future(client.query_arrow("SELECT 1"))
            await asyncio.to_thread(server.asked.wait, 60)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            server.held.set()
            assert await asyncio.to_thread(server.left.wait, 60)

    with Endless() as server:
        asyncio.run(ask(server))


@pytest.mark.parametrize("outlives_its_client", [False, True])
def test_a_stream_that_is_closed_ends_on_the_server(outlives_its_client: bool) -> None:
    async def ask(server: Endless) -> None:
        server.held.set()
        async with AsyncFlightSQLClient(Client(f"grpc://127.0.0.1:{server.port}")) as client:
            stream = client.query_stream("SELECT 1")
            assert (await anext(stream)).num_rows > 0
            if not outlives_its_client:
                await stream.aclose()
                assert await asyncio.to_thread(server.left.wait, 60)
        await stream.aclose()
        assert await asyncio.to_thread(server.left.wait, 60)

    with Endless() as server:
        asyncio.run(ask(server))
