"""`micromegas trace`: what a process did, as a file for Perfetto. The file appears whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from micromegas.cli.connection import Connection, connected
from micromegas.cli.errors import CliError
from micromegas.cli.process_lookup import known_process
from micromegas.cli.progress import progress
from micromegas.client.sql_literal import text_literal
from micromegas.wire import rfc3339_text


@dataclass(frozen=True, slots=True)
class TraceFlags:
    """The flags as typed."""

    process: str
    output: Path | None
    begin: str | None
    end: str | None
    types: str
    as_json: bool


def run_trace(connection: Connection, flags: TraceFlags) -> None:
    """Writes the file and tells of it on stderr; raises `CliError` with the next step for whatever goes wrong."""
    with connected(connection) as client:
        process = known_process(client, flags.process)
        output = flags.output or Path(f"{process.process_id}.perfetto-trace")
        begin, end = process.range(flags.begin, flags.end)
        arguments = ", ".join(
            text_literal(text) for text in (process.process_id, flags.types, rfc3339_text(begin), rfc3339_text(end))
        )
        sql = f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks({arguments})"
        with client.stream(sql) as chunks, _replaced(output) as file:
            size = _write(chunks, file)
    if flags.as_json:
        print(json.dumps({"process_id": process.process_id, "file": str(output), "bytes": size}))
    else:
        sys.stderr.write(f"{output}: {_size(size)}; open it at https://ui.perfetto.dev\n")


def _write(chunks: Iterable[pa.RecordBatch], file: BinaryIO) -> int:
    count = size = 0
    with progress("trace", is_bytes=True) as advance:
        for batch in chunks:
            for number, data in zip(batch["chunk_id"].to_pylist(), batch["chunk_data"].to_pylist(), strict=True):
                if number != count:
                    raise CliError(f"the server sent chunk {number} of the trace where {count} was due: try again")
                file.write(data)
                count += 1
                size += len(data)
                advance(len(data))
    return size


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place once everything was written, and leaves nothing behind otherwise."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise CliError(f"--output {path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes files that only their owner may read.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise CliError(f"--output {path}: {error.strerror}") from None
        raise
