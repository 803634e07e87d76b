"""The rows of one running query on the client's side. Closing it ends the query on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

import pyarrow as pa
from pyarrow import flight

from micromegas.client.errors import FLIGHT_ERRORS, translate
from micromegas.client.progress import Counting, OnProgress


class QueryResult:
    """Iterate for `pyarrow.RecordBatch`es of `schema` as they arrive, or take them all with `read_all()`.

    A context manager; errors are `ClientError`s, also in the middle of the rows.
    """

    def __init__(
        self,
        reader: flight.FlightStreamReader,
        address: str,
        *,
        progress: OnProgress | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        """`release` is called once, when the rows are no longer wanted."""
        self._reader = reader
        self._address = address
        self._counting = None if progress is None else Counting(progress)
        self._release = release
        try:
            self.schema: pa.Schema = reader.schema
        except FLIGHT_ERRORS as error:
            raise translate(error, address) from None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := self.read_batch()) is not None:
            yield batch

    def read_batch(self) -> pa.RecordBatch | None:
        """The next batch, None after the last."""
        while True:
            try:
                chunk = self._reader.read_chunk()
            except StopIteration:
                return None
            except FLIGHT_ERRORS as error:
                raise translate(error, self._address) from None
            if chunk.data is not None:
                if self._counting is not None:
                    self._counting.add(chunk.data)
                return chunk.data

    def read_all(self) -> pa.Table:
        return pa.Table.from_batches(list(self), self.schema)

    def cancel(self) -> None:
        """Ends the query without waiting, from any thread: who reads its rows gets an error."""
        self._reader.cancel()

    def close(self) -> None:
        """Ends the query, if it still runs. May be called more than once."""
        self.cancel()
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> QueryResult:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
