"""A Flight SQL client for Micromegas servers: statement and time range out, Arrow back. Holds no results and retries
nothing."""

from __future__ import annotations

from types import TracebackType

import pyarrow as pa
from pyarrow import flight

from micromegas.client.errors import FLIGHT_ERRORS, ServerUnreachable, translate
from micromegas.client.result import QueryResult
from micromegas.client.ticket import statement_ticket
from micromegas.client.times import Time, rfc3339

DEFAULT_ADDRESS = "grpc://localhost:50051"
_SCHEMES = {"http://": "grpc://", "https://": "grpc+tls://"}


class Client:
    """A connection to the server at `address` (`grpc://host:port`, or `grpc+tls://…`); opened by the first query.

    `api_key` is sent with each call. `preserve_dictionary` leaves dictionary columns as they are instead of writing
    their values out. A context manager.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, preserve_dictionary: bool = False
    ) -> None:
        self.address = address
        location = address
        for scheme, flight_scheme in _SCHEMES.items():
            if location.startswith(scheme):
                location = flight_scheme + location.removeprefix(scheme)
        try:
            self._flight = flight.connect(location)
        except FLIGHT_ERRORS as error:
            raise ServerUnreachable(f"address {address}: {error}") from None
        self._headers = [(b"x-client-type", b"python")]
        if api_key is not None:
            self._headers.append((b"authorization", f"Bearer {api_key}".encode()))
        if preserve_dictionary:
            self._headers.append((b"preserve_dictionary", b"true"))

    def query(self, sql: str, begin: Time | None = None, end: Time | None = None, limit: int | None = None) -> pa.Table:
        """All rows of a statement.

        `begin` and `end` restrict the rows of every view in it by event time, both inclusive; `limit` caps the rows of
        the answer. Raises `QueryFailed`, `ServerUnreachable` or `SignInRefused`.
        """
        with self.stream(sql, begin, end, limit) as result:
            return result.read_all()

    def stream(
        self, sql: str, begin: Time | None = None, end: Time | None = None, limit: int | None = None
    ) -> QueryResult:
        """As `query`, with the rows as they arrive."""
        headers = list(self._headers)
        for name, value in (("query_range_begin", begin), ("query_range_end", end)):
            if value is not None:
                headers.append((name.encode(), rfc3339(value).encode()))
        if limit is not None:
            headers.append((b"limit", str(limit).encode()))
        options = flight.FlightCallOptions(headers=headers)
        try:
            reader = self._flight.do_get(flight.Ticket(statement_ticket(sql)), options)
        except FLIGHT_ERRORS as error:
            raise translate(error, self.address) from None
        return QueryResult(reader, self.address)

    def close(self) -> None:
        self._flight.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
