"""Rows per second of one query for the Python client and over HTTP, in every form of an answer.

    python bench/clients.py [--rows 500000] [--rounds 3]

Asks a fresh `micromegas serve` for made rows of four columns (a time, a name, a number, a text). The floor of all, in
the same run, is `pyarrow.flight` itself reading the same answer and making nothing of it; JSON has one of its own:
Python's `json.dumps` of the same rows, which is what a server would do without kernels. Best of the rounds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow as pa
from e2e.serving import serving
from pyarrow import flight

import micromegas
from micromegas.client.messages import statement_ticket
from micromegas.config import LakeSettings
from micromegas.wire.row_formats import plain

SQL = """
SELECT to_timestamp_nanos(1700000000000000000 + value * 1000003) AS time, concat('name ', value % 100) AS name,
       value * 1.5 AS number, concat('a text with "quotes" and number ', value) AS msg
FROM generate_series(1, {rows})"""
DUMPED_ROWS = 20_000
FORMS = {
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
    "json lines": "application/x-ndjson",
    "csv": "text/csv",
}


def posted(port: int, sql: str, accept: str) -> int:
    """Bytes of an answer over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"content-type": "application/json", "accept": accept}
    connection.request("POST", "/api/query", json.dumps({"sql": sql}), headers)
    reply = connection.getresponse()
    size = 0
    while part := reply.read(1 << 20):
        size += len(part)
    connection.close()
    assert reply.status == 200
    return size


def best(rounds: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def dumped(table: pa.Table) -> int:
    columns = [[plain(value) for value in column] for column in table.columns]
    rows = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return len(json.dumps(rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sql = SQL.format(rows=options.rows)
    with tempfile.TemporaryDirectory() as folder, serving(LakeSettings(lake_dir=Path(folder) / "lake")) as service:
        address = f"grpc://127.0.0.1:{service.flight_port}"
        with flight.connect(address) as raw, micromegas.connect(address) as client:
            ticket = flight.Ticket(statement_ticket(sql))
            raw.do_get(ticket).read_all()  # starts what is started once
            floor = best(options.rounds, lambda: raw.do_get(ticket).read_all())
            print(f"{'pyarrow.flight alone':<24}{options.rows / floor:>12,.0f} rows/s")

            def told(name: str, seconds: float) -> None:
                print(f"{name:<24}{options.rows / seconds:>12,.0f} rows/s {seconds / floor:>6.2f} x its time")

            told("query_arrow", best(options.rounds, lambda: client.query_arrow(sql)))
            told("query (pandas)", best(options.rounds, lambda: client.query(sql)))
            told("query_polars", best(options.rounds, lambda: client.query_polars(sql)))
            for name, accept in FORMS.items():
                told(f"http, {name}", best(options.rounds, lambda accept=accept: posted(service.api_port, sql, accept)))
            table = client.query_arrow(sql, limit=DUMPED_ROWS)
            told("json.dumps alone", best(1, lambda: dumped(table)) * options.rows / table.num_rows)


if __name__ == "__main__":
    main()
