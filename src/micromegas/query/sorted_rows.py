"""Rows in an order, run by the engine into files of the statement, to be read as a stream by code of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, col

from micromegas.query.errors import QueryError
from micromegas.query.tables import Preparation


def spooled_in_order(preparation: Preparation, what: str, frame: DataFrame, order: Sequence[str]) -> Path:
    """A file of the frame's rows in ascending order of columns (none: in any). Must not be called where the engine
    calls us. Raises `QueryError` naming `what` where the rows are too many."""
    if order:
        frame = frame.sort(*(col(f'"{name}"') for name in order))
    return preparation.spool.write_stream(
        frame.schema(), _wanted_batches(preparation, frame), what, preparation.max_list_bytes
    )


def _wanted_batches(preparation: Preparation, frame: DataFrame) -> Iterator[pa.RecordBatch]:
    for batch in frame.execute_stream():
        if not preparation.is_wanted():
            raise QueryError("exhausted", "nobody waits for the answer any more")
        yield batch.to_pyarrow()


def spooled_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of such a file; may be called anywhere, any number of times."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
        yield from batches


def selected(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Some columns."""
    return frame.select(*(col(f'"{name}"') for name in names))
