"""Rows that no partition holds, as Arrow files of one statement: many of them don't fill the memory, and they are
scanned like partitions are. Must never outlive its statement."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from micromegas.query.errors import QueryError


class Spool:
    """Writes batches into a private folder, which is made when it is needed. `close()` removes it."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._folder: Path | None = None
        self._bytes = 0
        self._count = 0

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], what: str, max_bytes: int) -> list[str]:
        """URLs of the files, at least one. Raises `QueryError` naming `what` when all rows so far pass `max_bytes`."""
        urls = []
        for batch in batches:
            self._count_bytes(batch, what, max_bytes)
            urls.append(self._write_one(schema, [batch]))
        return urls or [self._write_one(schema, [])]

    def write_stream(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], what: str, max_bytes: int) -> Path:
        """One file in the streaming format, to be read by ourselves; otherwise as `write`."""
        path = self._new_path()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                self._count_bytes(batch, what, max_bytes)
                writer.write_batch(batch)
        return path

    def _count_bytes(self, batch: pa.RecordBatch, what: str, max_bytes: int) -> None:
        self._bytes += batch.nbytes
        if self._bytes > max_bytes:
            raise QueryError(
                "exhausted", f"{what}: more than {max_bytes} bytes to be read for one query; narrow its range"
            )

    def _new_path(self) -> Path:
        if self._folder is None:
            self._folder = self._new_folder()
        self._count += 1
        return self._folder / f"{self._count - 1}.arrow"

    def _write_one(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> str:
        # One batch per file: the file format allows one dictionary per column.
        path = self._new_path()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return path.as_uri()

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
