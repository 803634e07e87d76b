"""The rows of one running query on the client's side. Closing it ends the query on the server."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa
from pyarrow import flight

from micromegas.client.errors import FLIGHT_ERRORS, translate


class QueryResult:
    """Iterate for `pyarrow.RecordBatch`es of `schema` as they arrive, or take them all with `read_all()`.

    A context manager; errors are `ClientError`s, also in the middle of the rows.
    """

    def __init__(self, reader: flight.FlightStreamReader, address: str) -> None:
        self._reader = reader
        self._address = address
        try:
            self.schema: pa.Schema = reader.schema
        except FLIGHT_ERRORS as error:
            raise translate(error, address) from None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                chunk = self._reader.read_chunk()
            except StopIteration:
                return
            except FLIGHT_ERRORS as error:
                raise translate(error, self._address) from None
            if chunk.data is not None:
                yield chunk.data

    def read_all(self) -> pa.Table:
        return pa.Table.from_batches(list(self), self.schema)

    def close(self) -> None:
        self._reader.cancel()

    def __enter__(self) -> QueryResult:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
