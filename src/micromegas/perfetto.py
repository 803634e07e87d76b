"""Traces for ui.perfetto.dev by the names that the original's client has."""

from __future__ import annotations

from pathlib import Path

from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.times import Time
from micromegas.client.traces import replaced, trace_chunks, trace_sql


def write_process_trace(  # noqa: PLR0917 # theirs
    client: FlightSQLClient, process_id: str, begin: Time, end: Time, trace_filepath: str, span_types: str = "both"
) -> None:
    """Writes what a process did from `begin` to `end`. `span_types`: `thread`, `async` or `both`, and of our servers
    also `measures`, `logs` and `all`, or several with commas. Raises `ClientError`, `OSError`."""
    sql = trace_sql(process_id, span_types, begin, end)
    with client.client.stream(sql, begin, end) as batches, replaced(Path(trace_filepath)) as file:
        for chunk in trace_chunks(batches):
            file.write(chunk)


def write_process_trace_from_chunks(  # noqa: PLR0917 # theirs
    client: FlightSQLClient, process_id: str, begin: Time, end: Time, span_types: str, trace_filepath: str
) -> None:
    """As `write_process_trace`."""
    write_process_trace(client, process_id, begin, end, trace_filepath, span_types)
