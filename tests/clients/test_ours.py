"""Our own clients on each back end: the Python client, its coroutines, and every question of the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cli.calling import call
from e2e.recordings import recording
from e2e.serving import Service

import micromegas
from micromegas import perfetto

LOGS = recording("logs")
(PROCESS,) = LOGS.processes
N_LOGS = sum(len(block.events) for block in LOGS.blocks if "log" in block.header["tags"])
OF_PROCESS = f"SELECT time, level, msg FROM log_entries WHERE process_id = '{PROCESS}' ORDER BY time, msg"


def test_the_python_client(address: str, tmp_path: Path) -> None:
    with micromegas.connect(address) as client:
        table = client.query_arrow(OF_PROCESS)
        assert table.num_rows == len(client.query(OF_PROCESS)) == client.query_polars(OF_PROCESS).height == N_LOGS
        assert sum(batch.num_rows for batch in client.query_stream(OF_PROCESS)) == N_LOGS
        first = table["time"][0].cast(pa.int64()).as_py()
        assert len(client.query(OF_PROCESS, begin=first, end=first)) == 1
        assert len(client.query(OF_PROCESS, limit=2)) == 2
        assert len(client.query(f"{OF_PROCESS};", begin="-1h")) == 0
        bound = "SELECT count(*) AS n FROM log_entries WHERE process_id = $process AND level <= $most"
        assert client.query(bound, parameters={"process": PROCESS, "most": 6})["n"][0] == N_LOGS
        assert client.prepare_statement(OF_PROCESS).dataset_schema.names == table.schema.names
        assert list(client.find_process(PROCESS)["process_id"]) == [PROCESS]
        (stream,) = client.query_streams(None, None, 10, PROCESS, "log")["stream_id"]
        assert len(client.query_blocks(None, None, 100, stream)) > 0
        trace = tmp_path / "process.perfetto-trace"
        perfetto.write_process_trace(client, PROCESS, "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z", str(trace))
        assert trace.stat().st_size > 0
        with pytest.raises(pa.ArrowInvalid, match="nothing"):
            client.query("SELECT nothing FROM log_entries")


def test_coroutines(address: str) -> None:
    async def ask() -> list[int]:
        async with micromegas.connect_async(address) as client:
            tables = await asyncio.gather(*(client.query_arrow(OF_PROCESS) for _ in range(4)))
            return [table.num_rows for table in tables]

    assert asyncio.run(ask()) == [N_LOGS] * 4


def rows(service: Service, *arguments: str) -> list[dict[str, Any]]:
    """What a command tells in JSON."""
    done = call(*arguments, "--json", "--server", f"grpc://127.0.0.1:{service.flight_port}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def test_the_command_line(service: Service, tmp_path: Path) -> None:
    assert len(rows(service, "query", OF_PROCESS)) == N_LOGS
    assert PROCESS in {row["process_id"] for row in rows(service, "processes")}
    assert len(rows(service, "logs", PROCESS)) == N_LOGS
    spans = next(iter(recording("spans").processes))
    assert rows(service, "spans", spans)
    assert isinstance(rows(service, "metrics", spans), list)
    assert "log_entries" in {row["view_set_name"] for row in rows(service, "views")}
    (trace,) = rows(service, "trace", spans, "-o", str(tmp_path / "trace"))
    assert trace["bytes"] == (tmp_path / "trace").stat().st_size > 0
    assert rows(service, "materialize", "log_entries", "--begin", "1h", "--end", "now")
    assert "log_entries" in {row["view_set_name"] for row in rows(service, "partitions")}
    assert rows(service, "retire", "log_entries", "global", "--begin", "2001-01-01", "--end", "2001-01-02")
    ports = ("--url", f"http://127.0.0.1:{service.http_port}", "--api-url", f"http://127.0.0.1:{service.api_port}")
    states = {row["check"]: row["state"] for row in rows(service, "doctor", *ports, "--spool", str(tmp_path))}
    assert {states[each] for each in ("ingestion", "queries", "clock", "telemetry", "http")} == {"ok"}
