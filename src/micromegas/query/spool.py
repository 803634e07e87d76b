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
            self._bytes += batch.nbytes
            if self._bytes > max_bytes:
                raise QueryError(
                    "exhausted", f"{what}: more than {max_bytes} bytes to be read for one query; narrow its range"
                )
            urls.append(self._write_one(schema, [batch]))
        return urls or [self._write_one(schema, [])]

    def _write_one(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> str:
        # One batch per file: the file format allows one dictionary per column.
        if self._folder is None:
            self._folder = self._new_folder()
        path = self._folder / f"{self._count}.arrow"
        self._count += 1
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return path.as_uri()

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
