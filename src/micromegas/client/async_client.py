"""The client for programs on asyncio: the same questions, awaited. Runs the connection's calls on its own threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import pyarrow as pa

from micromegas.client.client import Client, QueryOptions
from micromegas.client.frames import to_pandas, to_polars
from micromegas.client.prepared import PreparedStatement
from micromegas.client.result import QueryResult
from micromegas.client.times import Time

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Answer = TypeVar("Answer")
Statement = str | PreparedStatement


class AsyncFlightSQLClient:
    """As `FlightSQLClient`, for coroutines. An asynchronous context manager; belongs to one event loop.

    As many calls as there are `threads` run at once, others wait for their turn. Cancelling what awaits a call ends its
    query on the server: at once while rows come, else as soon as the server has planned it.
    """

    def __init__(self, client: Client, *, threads: int = 32) -> None:
        self.client = client
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="micromegas-client")

    async def query(
        self, sql: Statement, begin: Time | None = None, end: Time | None = None, **options: Unpack[QueryOptions]
    ) -> pd.DataFrame:
        """All rows, as a data frame of pandas."""
        table = await self.query_arrow(sql, begin, end, **options)
        return await self._run(lambda: to_pandas(table))

    async def query_polars(
        self, sql: Statement, begin: Time | None = None, end: Time | None = None, **options: Unpack[QueryOptions]
    ) -> pl.DataFrame:
        """All rows, as a data frame of polars."""
        table = await self.query_arrow(sql, begin, end, **options)
        return await self._run(lambda: to_polars(table))

    async def query_arrow(
        self, sql: Statement, begin: Time | None = None, end: Time | None = None, **options: Unpack[QueryOptions]
    ) -> pa.Table:
        """All rows, as an Arrow table."""
        result = await self._started(lambda: self.client.stream(sql, begin, end, **options))
        try:
            return await self._read(result, result.read_all)
        finally:
            self._end(result)

    async def query_stream(
        self, sql: Statement, begin: Time | None = None, end: Time | None = None, **options: Unpack[QueryOptions]
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Batches of rows as they arrive; closing the generator ends the query."""
        result = await self._started(lambda: self.client.stream(sql, begin, end, **options))
        try:
            while (batch := await self._read(result, result.read_batch)) is not None:
                yield batch
        finally:
            self._end(result)

    async def prepare_statement(self, sql: str) -> PreparedStatement:
        """The statement as the server reads it."""
        return await self._run(lambda: self.client.prepare(sql))

    async def close(self) -> None:
        """Waits for the calls that still run."""
        await asyncio.to_thread(self._threads.shutdown)
        self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _run(self, call: Callable[[], Answer]) -> asyncio.Future[Answer]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _end(self, result: QueryResult) -> None:
        """Ends the query at once; what is left to do, a thread does."""
        result.cancel()
        # a client that was closed meanwhile has none any more, and nothing is left to do
        with suppress(RuntimeError):
            self._threads.submit(result.close)

    async def _started(self, start: Callable[[], QueryResult]) -> QueryResult:
        """A running query; one that is ready only when nobody waits for it any more is ended."""
        starting = self._threads.submit(start)
        try:
            return await asyncio.shield(asyncio.wrap_future(starting))
        except asyncio.CancelledError:
            if not starting.cancel():
                starting.add_done_callback(lambda done: None if done.exception() else done.result().close())
            raise

    async def _read(self, result: QueryResult, read: Callable[[], Answer]) -> Answer:
        reading = self._run(read)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            result.cancel()
            # the thread comes back with an error that nobody wants
            reading.add_done_callback(lambda done: None if done.cancelled() else done.exception())
            raise
