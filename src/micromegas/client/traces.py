"""Traces of processes for ui.perfetto.dev, as files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from micromegas.client.errors import ServerFailed
from micromegas.client.sql_literal import text_literal
from micromegas.client.times import Time, rfc3339


def trace_sql(process_id: str, types: str, begin: Time, end: Time) -> str:
    """The statement whose rows `trace_chunks` reads."""
    arguments = ", ".join(map(text_literal, (process_id, types, rfc3339(begin), rfc3339(end))))
    return f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks({arguments})"


def trace_chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The pieces of a trace, in order; `ServerFailed` when one is missing."""
    due = 0
    for batch in batches:
        for number, data in zip(batch["chunk_id"].to_pylist(), batch["chunk_data"].to_pylist(), strict=True):
            if number != due:
                raise ServerFailed(f"the server sent chunk {number} of the trace where {due} was due: try again")
            due += 1
            yield data


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place once everything was written, and leaves nothing behind otherwise. A link keeps
    pointing to it; what is no file, such as a pipe or `/dev/stdout`, is written into as it is."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes files that only their owner may read.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
