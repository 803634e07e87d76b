"""The client that people work with: SQL in, data frames out, and the calls of the original's client by their names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import pyarrow as pa

from micromegas.client.client import DEFAULT_ADDRESS, Client, QueryOptions
from micromegas.client.credentials import AuthProvider, StaticTokenAuthProvider
from micromegas.client.frames import to_pandas, to_polars
from micromegas.client.ingest_result import IngestResult
from micromegas.client.prepared import Parameters, PreparedStatement
from micromegas.client.progress import OnProgress, ProgressLine
from micromegas.client.sql_literal import text_literal
from micromegas.client.times import Time, rfc3339

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Shown = bool | OnProgress
"""Whether a line of stderr tells how far an answer has come, or who is told instead."""


class FlightSQLClient:
    """A connection to a server; opened by the first call. A context manager; may be used by many threads at once.

    `uri` is `grpc://host:port` or `grpc+tls://host:port`. Every call that takes a `begin` and an `end` restricts the
    rows of every view by event time, both inclusive, each optional: a datetime with a time zone, a Timestamp of pandas,
    ns since the epoch, an RFC 3339 text, or a text as people type it, such as `-1h`. `limit` caps the rows of the
    answer, `parameters` are the values of placeholders (`$1`, `?` or `$name`), and `progress` is True for a line on
    stderr, or a function that is called with a `Progress` for each batch.

    Raises `micromegas.client.ClientError`s, which are also of the types that `pyarrow.flight` has for the same.
    """

    def __init__(
        self,
        uri: str = DEFAULT_ADDRESS,
        headers: dict[str, str] | None = None,
        preserve_dictionary: bool = False,
        auth_provider: AuthProvider | None = None,
        client_entrypoint: str | None = None,
        *,
        client: Client | None = None,
    ) -> None:
        """`headers` is what programs of before signed in with: only its `authorization` is used. `client` is a
        connection to use instead of all this."""
        if headers is not None:
            warnings.warn("headers are no longer used: give an auth_provider", DeprecationWarning, stacklevel=2)
            auth_provider = auth_provider or _provider_of(headers)
        self.client = client or Client(
            uri,
            auth_provider=auth_provider,
            preserve_dictionary=preserve_dictionary,
            entrypoint=client_entrypoint,
        )

    def query(
        self,
        sql: str,
        begin: Time | None = None,
        end: Time | None = None,
        *,
        progress: Shown = False,
        **options: Unpack[QueryOptions],
    ) -> pd.DataFrame:
        """All rows, as a data frame of pandas."""
        return to_pandas(self.query_arrow(sql, begin, end, progress=progress, **options))

    def query_polars(
        self,
        sql: str,
        begin: Time | None = None,
        end: Time | None = None,
        *,
        progress: Shown = False,
        **options: Unpack[QueryOptions],
    ) -> pl.DataFrame:
        """All rows, as a data frame of polars."""
        return to_polars(self.query_arrow(sql, begin, end, progress=progress, **options))

    def query_arrow(
        self,
        sql: str,
        begin: Time | None = None,
        end: Time | None = None,
        *,
        progress: Shown = False,
        **options: Unpack[QueryOptions],
    ) -> pa.Table:
        """All rows, as an Arrow table."""
        with _told(progress) as tell:
            return self.client.query(sql, begin, end, progress=tell, **options)

    def query_stream(
        self, sql: str, begin: Time | None = None, end: Time | None = None, **options: Unpack[QueryOptions]
    ) -> Iterator[pa.RecordBatch]:
        """Batches of rows as they arrive; closing the iterator ends the query."""
        with self.client.stream(sql, begin, end, **options) as result:
            yield from result

    def prepare_statement(self, sql: str) -> PreparedStatement:
        """The statement as the server reads it: its text (`query`), the schema of its rows (`dataset_schema`), and its
        placeholders (`parameter_schema`)."""
        return self.client.prepare(sql)

    def prepared_statement_stream(
        self, statement: PreparedStatement, parameters: Parameters | None = None
    ) -> Iterator[pa.RecordBatch]:
        """As `query_stream`."""
        with self.client.stream(statement, parameters=parameters) as result:
            yield from result

    def bulk_ingest(self, table_name: str, table: pa.Table) -> IngestResult | None:
        """Writes rows into `processes`, `streams`, `blocks` or `payloads` as another lake has them; for administrators.
        The number of rows that were taken (also its `record_count`), None when the server doesn't say."""
        if not isinstance(table, pa.Table):
            raise TypeError(f"a pyarrow.Table is needed, not a {type(table).__name__}")
        return self.client.bulk_ingest(table_name, table)

    def find_process(self, process_id: str) -> pd.DataFrame:
        """The row of a process, or no row."""
        return self.query(f"SELECT * FROM processes WHERE process_id = {text_literal(process_id)}")

    def query_streams(
        self, begin: Time, end: Time, limit: int, process_id: str | None = None, tag_filter: str | None = None
    ) -> pd.DataFrame:
        """Streams of a range, those of a process or with a tag only."""
        conditions = ["TRUE"]
        if process_id is not None:
            conditions.append(f"process_id = {text_literal(process_id)}")
        if tag_filter is not None:
            conditions.append(f"array_has(tags, {text_literal(tag_filter)})")
        return self.query(f"SELECT * FROM streams WHERE {' AND '.join(conditions)}", begin, end, limit=limit)

    def query_blocks(self, begin: Time, end: Time, limit: int, stream_id: str) -> pd.DataFrame:
        """Blocks of a stream."""
        sql = f"SELECT * FROM blocks WHERE stream_id = {text_literal(stream_id)}"
        return self.query(sql, begin, end, limit=limit)

    def query_spans(self, begin: Time, end: Time, limit: int, stream_id: str) -> pd.DataFrame:
        """Spans of a thread."""
        sql = f"SELECT * FROM view_instance('thread_spans', {text_literal(stream_id)})"
        return self.query(sql, begin, end, limit=limit)

    def materialize_partitions(self, view_set_name: str, begin: Time, end: Time, partition_delta_seconds: int) -> None:
        """Makes the partitions of a view over a range of insert time, as the daemon would, and prints what was done as
        it is done; for administrators."""
        self._order("materialize_partitions", _buckets(view_set_name, begin, end, partition_delta_seconds))

    def regenerate_partitions(self, view_set_name: str, begin: Time, end: Time, partition_delta_seconds: int) -> None:
        """As `materialize_partitions`, also what is there already."""
        self._order("regenerate_partitions", _buckets(view_set_name, begin, end, partition_delta_seconds))

    def retire_partitions(self, view_set_name: str, view_instance_id: str, begin: Time, end: Time) -> None:
        """Retires the partitions of a view instance that lie within a range of insert time, and prints which; for
        administrators."""
        texts = (view_set_name, view_instance_id, rfc3339(begin), rfc3339(end))
        self._order("retire_partitions", ", ".join(map(text_literal, texts)))

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, function: str, arguments: str) -> None:
        for batch in self.query_stream(f"SELECT time, msg FROM {function}({arguments})"):
            for time, text in zip(*(batch[name].to_pylist() for name in ("time", "msg")), strict=True):
                print(time, text)


def _buckets(view_set: str, begin: Time, end: Time, step_s: int) -> str:
    texts = (view_set, rfc3339(begin), rfc3339(end))
    return f"{', '.join(map(text_literal, texts))}, {int(step_s)}"


def _told(progress: Shown) -> AbstractContextManager[OnProgress | None]:
    if progress is True:
        return ProgressLine()
    return nullcontext(progress or None)


def _provider_of(headers: dict[str, str]) -> AuthProvider | None:
    for name, value in headers.items():
        if name.lower() == "authorization":
            return StaticTokenAuthProvider(value.removeprefix("Bearer "))
    return None
