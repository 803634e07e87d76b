"""`micromegas trace`: what a process did, as a file for Perfetto. The file appears whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from micromegas.cli.connection import connected
from micromegas.cli.options import Connection
from micromegas.cli.output_file import output_file
from micromegas.cli.process_lookup import known_process
from micromegas.cli.progress import progress
from micromegas.cli.questions import TraceFlags
from micromegas.client.traces import trace_chunks, trace_sql


def run_trace(connection: Connection, flags: TraceFlags) -> None:
    """Writes the file and tells of it on stderr; raises `CliError` with the next step for whatever goes wrong."""
    with connected(connection) as client:
        process = known_process(client, flags.process)
        output = flags.output or Path(f"{process.process_id}.perfetto-trace")
        begin, end = process.range(flags.begin, flags.end)
        sql = trace_sql(process.process_id, flags.types, begin, end)
        with client.stream(sql) as chunks, output_file(output) as file:
            size = _write(chunks, file)
    if flags.as_json:
        print(json.dumps({"process_id": process.process_id, "file": str(output), "bytes": size}))
    else:
        sys.stderr.write(f"{output}: {_size(size)}; open it at https://ui.perfetto.dev\n")


def _write(chunks: Iterable[pa.RecordBatch], file: BinaryIO) -> int:
    size = 0
    with progress("trace", is_bytes=True) as advance:
        for data in trace_chunks(chunks):
            file.write(data)
            size += len(data)
            advance(len(data))
    return size


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"
