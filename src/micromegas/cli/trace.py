"""`micromegas trace`: what a process did, as a file for Perfetto. The file appears whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from micromegas.cli.errors import CliError
from micromegas.cli.server_errors import told_in_one_line
from micromegas.cli.times import parse_time
from micromegas.client import Client
from micromegas.client.sql_literal import text_literal
from micromegas.wire import rfc3339_text

# Events may lie outside of the times that their process tells of itself: clocks drift.
_MARGIN = 300_000_000_000


@dataclass(frozen=True, slots=True)
class TraceFlags:
    """The flags as typed."""

    process: str
    output: Path | None
    begin: str | None
    end: str | None
    types: str
    server: str
    api_key: str | None


def run_trace(flags: TraceFlags) -> None:
    """Writes the file and tells of it on stderr; raises `CliError` with the next step for whatever goes wrong."""
    try:
        process_id = str(uuid.UUID(flags.process))
    except ValueError:
        raise CliError(
            f"{flags.process} is not the id of a process: find one with  micromegas query "
            '"SELECT process_id, exe, start_time FROM processes ORDER BY start_time DESC LIMIT 10"'
        ) from None
    output = flags.output or Path(f"{process_id}.perfetto-trace")
    with told_in_one_line(), Client(flags.server, api_key=flags.api_key) as client:
        begin, end = _range(client, process_id, flags)
        arguments = ", ".join(
            text_literal(text) for text in (process_id, flags.types, rfc3339_text(begin), rfc3339_text(end))
        )
        sql = f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks({arguments})"
        with client.stream(sql) as chunks, _replaced(output) as file:
            size = _write(chunks, file)
    sys.stderr.write(f"{output}: {_size(size)}; open it at https://ui.perfetto.dev\n")


def _range(client: Client, process_id: str, flags: TraceFlags) -> tuple[int, int]:
    """What was asked for, or all that the server has of the process."""
    sql = f"SELECT start_time, last_block_end_time FROM processes WHERE process_id = {text_literal(process_id)}"
    known = client.query(sql)
    if known.num_rows == 0:
        raise CliError(
            f'unknown process {process_id}: list them with  micromegas query "SELECT process_id, exe FROM processes"'
        )
    start, last = (known[name][0].cast(pa.int64()).as_py() for name in ("start_time", "last_block_end_time"))
    now = time.time_ns()
    begin = start - _MARGIN if flags.begin is None else parse_time("--begin", flags.begin, now)
    latest = (now if last is None else last) + _MARGIN
    end = max(latest, begin) if flags.end is None else parse_time("--end", flags.end, now)
    if begin > end:
        raise CliError("--begin lies after --end: exchange them")
    return begin, end


def _write(chunks: Iterable[pa.RecordBatch], file: BinaryIO) -> int:
    count = size = 0
    for batch in chunks:
        for number, data in zip(batch["chunk_id"].to_pylist(), batch["chunk_data"].to_pylist(), strict=True):
            if number != count:
                raise CliError(f"the server sent chunk {number} of the trace where {count} was due: try again")
            file.write(data)
            count += 1
            size += len(data)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{_size(size)} ")
    if sys.stderr.isatty():
        sys.stderr.write("\r")
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
