"""A Flight SQL client for Micromegas servers: statement and time range out, Arrow back. Holds no results."""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar

import pyarrow as pa
from pyarrow import flight

from micromegas.client import messages
from micromegas.client.attribution import attribution_headers
from micromegas.client.credentials import AuthProvider, StaticTokenAuthProvider
from micromegas.client.errors import (
    FLIGHT_ERRORS,
    AddressInvalid,
    ClientError,
    ServerFailed,
    ServerUnreachable,
    translate,
)
from micromegas.client.ingest_result import IngestResult
from micromegas.client.prepared import Parameters, PreparedStatement
from micromegas.client.progress import OnProgress
from micromegas.client.result import QueryResult
from micromegas.client.times import Time, rfc3339

DEFAULT_ADDRESS = "grpc://localhost:50051"
_SCHEMES = {"http://": "grpc://", "https://": "grpc+tls://"}
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
# A server that vanished without a word is noticed; one that restarts is found again before the retries are used up.
_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

Answer = TypeVar("Answer")


class QueryOptions(TypedDict, total=False):
    """What else may be said of a query: the most rows of its answer, and the values of its placeholders."""

    limit: int | None
    parameters: Parameters | None


class ConnectOptions(TypedDict, total=False):
    """What else may be said of a connection; each as of `Client`."""

    api_key: str | None
    auth_provider: AuthProvider | None
    retries: int
    ca_file: str | Path | None


class Client:
    """A connection to the server at `address` (`grpc://host:port`, or `grpc+tls://…`); opened by the first query.

    A context manager; may be used by many threads at once. Raises `ClientError`s: `ServerUnreachable`,
    `SignInRefused`, `NotPermitted` or `QueryFailed`; `AddressInvalid` and other `ValueError`s for arguments
    that can't be.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        api_key: str | None = None,
        auth_provider: AuthProvider | None = None,
        preserve_dictionary: bool = False,
        entrypoint: str | None = None,
        retries: int = 3,
        ca_file: str | Path | None = None,
    ) -> None:
        """`api_key`, or else the token that `auth_provider` gives for each call, signs in.

        `preserve_dictionary` leaves dictionary columns as they are instead of writing their values out. `entrypoint`
        is what the server's audit log calls the program. A call that finds no server is tried again `retries` times,
        for some 1.5 seconds by default, unless rows have come already. `ca_file` holds the certificates (PEM) that
        sign those of servers; by default they are the system's.
        """
        self.address = address
        self.retries = retries
        if api_key is not None:
            auth_provider = StaticTokenAuthProvider(api_key)
        self._auth_provider = auth_provider
        self._headers = attribution_headers(entrypoint, os.environ)
        self._preserve_dictionary = preserve_dictionary
        location = flight_address(address)
        tls = _trusted(ca_file) if location.startswith("grpc+tls://") else {}
        try:
            self._flight = flight.connect(location, generic_options=_CHANNEL_OPTIONS, **tls)
        except FLIGHT_ERRORS:
            form = "grpc://host:port, or grpc+tls://host:port"
            raise AddressInvalid(f"{address!r} is no address of a server: write it as {form}") from None

    def query(
        self,
        sql: str | PreparedStatement,
        begin: Time | None = None,
        end: Time | None = None,
        limit: int | None = None,
        *,
        parameters: Parameters | None = None,
        progress: OnProgress | None = None,
    ) -> pa.Table:
        """All rows of a statement.

        `begin` and `end` restrict the rows of every view in it by event time, both inclusive; `limit` caps the rows of
        the answer. `parameters` are values of the statement's placeholders; `progress` is called for each batch.
        """
        with self.stream(sql, begin, end, limit, parameters=parameters, progress=progress) as result:
            return result.read_all()

    def stream(
        self,
        sql: str | PreparedStatement,
        begin: Time | None = None,
        end: Time | None = None,
        limit: int | None = None,
        *,
        parameters: Parameters | None = None,
        progress: OnProgress | None = None,
    ) -> QueryResult:
        """As `query`, with the rows as they arrive."""
        headers = []
        for name, value in (("query_range_begin", begin), ("query_range_end", end)):
            if value is not None:
                headers.append((name.encode(), rfc3339(value).encode()))
        if limit is not None:
            headers.append((b"limit", str(limit).encode()))

        def start() -> QueryResult:
            if isinstance(sql, str) and parameters is None:
                return self._rows(messages.statement_ticket(sql), headers, progress)
            statement = self._prepare(sql) if isinstance(sql, str) else sql

            def close() -> None:
                if statement is not sql:
                    self._close(statement)

            try:
                handle = statement.handle if parameters is None else self._bind(statement, parameters)
                return self._rows(messages.prepared_query(handle), headers, progress, close)
            except BaseException:
                close()
                raise

        return self._retried(start)

    def prepare(self, sql: str) -> PreparedStatement:
        """The statement as the server reads it, to be asked more than once with different parameters."""
        return self._retried(lambda: self._prepare(sql))

    def bulk_ingest(self, table_name: str, table: pa.Table) -> IngestResult | None:
        """Writes rows into `processes`, `streams`, `blocks` or `payloads` as another lake has them; for administrators.

        The number of rows that the server has taken, None when it doesn't say.
        """
        descriptor = flight.FlightDescriptor.for_command(messages.ingest_command(table_name))
        metadata = self._put(descriptor, table.schema, table.to_batches())
        count = None if metadata is None else _read(messages.read_record_count, metadata)
        return None if count is None else IngestResult(count)

    def close(self) -> None:
        self._flight.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rows(
        self,
        ticket: bytes,
        headers: list[tuple[bytes, bytes]],
        progress: OnProgress | None,
        release: Callable[[], None] | None = None,
    ) -> QueryResult:
        try:
            reader = self._flight.do_get(flight.Ticket(ticket), self._options(headers))
        except FLIGHT_ERRORS as error:
            raise translate(error, self.address) from None
        return QueryResult(reader, self.address, progress=progress, release=release)

    def _prepare(self, sql: str) -> PreparedStatement:
        body = self._act("CreatePreparedStatement", messages.create_statement(sql))
        return _read(lambda packed: PreparedStatement.of(sql, messages.read_prepared_result(packed)), body)

    def _bind(self, statement: PreparedStatement, parameters: Parameters) -> bytes:
        """The handle of the statement with these values."""
        row = statement.row(parameters)
        if not row.num_columns:
            return statement.handle
        descriptor = flight.FlightDescriptor.for_command(messages.prepared_query(statement.handle))
        metadata = self._put(descriptor, row.schema, [row])
        handle = None if metadata is None else _read(messages.read_bound_handle, metadata)
        return statement.handle if handle is None else handle

    def _close(self, statement: PreparedStatement) -> None:
        """Servers forget statements by themselves: one that can't be closed now is no error."""
        with suppress(ClientError):
            self._act("ClosePreparedStatement", messages.close_statement(statement.handle))

    def _act(self, kind: str, body: bytes) -> bytes:
        try:
            results = list(self._flight.do_action(flight.Action(kind, body), self._options()))
        except FLIGHT_ERRORS as error:
            raise translate(error, self.address) from None
        return bytes(results[0].body) if results else b""

    def _put(
        self, descriptor: flight.FlightDescriptor, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
    ) -> bytes | None:
        """What the server says once it has taken everything."""
        try:
            writer, reader = self._flight.do_put(descriptor, schema, self._options())
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                writer.done_writing()
                metadata = reader.read()
        except FLIGHT_ERRORS as error:
            raise translate(error, self.address) from None
        return None if metadata is None else bytes(metadata)

    def _options(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> flight.FlightCallOptions:
        headers = [*self._headers, *headers]
        if self._auth_provider is not None:
            headers.append((b"authorization", f"Bearer {self._auth_provider.get_token()}".encode()))
        if self._preserve_dictionary:
            headers.append((b"preserve_dictionary", b"true"))
        return flight.FlightCallOptions(headers=headers)

    def _retried(self, call: Callable[[], Answer]) -> Answer:
        """Statements only read, or may be carried out twice: what found no server is asked again."""
        for attempt in range(self.retries):
            try:
                return call()
            except ServerUnreachable:
                delay = min(_FIRST_DELAY_S * 2**attempt, _LONGEST_DELAY_S)
                time.sleep(delay * random.uniform(0.75, 1.25))
        return call()


def flight_address(address: str) -> str:
    """The address in the scheme of Flight, which may be written in that of HTTP."""
    for scheme, flight_scheme in _SCHEMES.items():
        if address.startswith(scheme):
            return flight_scheme + address.removeprefix(scheme)
    return address


def _read(reader: Callable[[bytes], Answer], message: bytes) -> Answer:
    try:
        return reader(message)
    except ValueError as error:
        raise ServerFailed(str(error)) from None


def _trusted(ca_file: str | Path | None) -> dict[str, Any]:
    """The certificates that `pyarrow.flight` is to trust: it doesn't look for the system's itself."""
    path = ssl.get_default_verify_paths().cafile if ca_file is None else ca_file
    return {} if path is None else {"tls_root_certs": Path(path).read_bytes()}
