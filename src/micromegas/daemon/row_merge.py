"""Rows of several partition files as one stream in order of time, in bounded memory.

It must never lose or repeat a row; the order is given up first when too many files overlap.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from micromegas.lake import Lake, LakeCorrupt, LakeError, Partition
from micromegas.views.block_decoding import ROW_GROUP_ROWS
from micromegas.views.time_order import in_time_order, used_dictionary_values
from micromegas.views.view_set import ViewSet

MAX_OPEN_RUNS = 64
# What the open runs hold of rows; few blocks can make row groups of long texts that all overlap in time.
MAX_OPEN_BYTES = 256 * 1024 * 1024
BATCH_ROWS = 16 * 1024
# Bounds a row group of long texts.
MAX_GROUP_BYTES = 64 * 1024 * 1024


def merged_rows(lake: Lake, view_set: ViewSet, parts: Sequence[Partition]) -> Iterator[pa.Table]:
    """All rows of the parts as row groups of the view's schema, in order of `view_set.min_column` wherever no more than
    `MAX_OPEN_RUNS` row groups, or `MAX_OPEN_BYTES` of their rows, overlap in time.

    Row groups of the parts are taken to be sorted; where they are not, only the order suffers. Raises `LakeCorrupt`
    naming a part whose file isn't whole.
    """
    pending: list[pa.Table] = []
    rows = 0
    size = 0
    for step in _OpenRuns(lake, view_set, parts):
        pending += step
        rows += sum(piece.num_rows for piece in step)
        size += sum(piece.nbytes for piece in step)
        if rows >= ROW_GROUP_ROWS or size >= MAX_GROUP_BYTES:
            yield _row_group(pending, view_set.min_column)
            pending, rows, size = [], 0, 0
    if rows:
        yield _row_group(pending, view_set.min_column)


def _row_group(pieces: list[pa.Table], column: str) -> pa.Table:
    table = pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    # A slice of a row group carries the dictionary of all of it.
    return used_dictionary_values(in_time_order(table, column))


class _Run:
    """The rest of one row group, in batches of ascending time."""

    def __init__(self, batches: Iterator[pa.RecordBatch], column: str) -> None:
        self._batches = batches
        self._column = column
        self._rows: pa.Table | None = None
        self._times = np.empty(0, dtype=np.int64)
        self._position = 0
        self.is_last = False
        self.is_empty = False
        # Memory of the rows that were read, as far as they may not be taken yet.
        self.nbytes = 0
        self._next = next(batches, None)
        self._refill()

    @property
    def last_time(self) -> int:
        return int(self._times[-1])

    def take_until(self, time: int | None) -> pa.Table | None:
        """The buffered rows up to and with `time` (None: all of them)."""
        if self._rows is None:
            return None
        end = len(self._times) if time is None else int(np.searchsorted(self._times, time, side="right"))
        if end <= self._position:
            return None
        taken = self._rows.slice(self._position, end - self._position)
        self._position = end
        if end == len(self._times):
            self._refill()
        return taken

    def _refill(self) -> None:
        while self._next is not None and self._next.num_rows == 0:
            self._next = next(self._batches, None)
        if self._next is None:
            self._rows, self.is_empty, self.nbytes = None, True, 0
            return
        rows = in_time_order(pa.Table.from_batches([self._next]), self._column)
        self._rows = rows
        self._times = rows[self._column].cast(pa.int64()).to_numpy()
        self._position = 0
        self._next = next(self._batches, None)
        self.is_last = self._next is None
        self.nbytes = rows.nbytes + (0 if self._next is None else self._next.nbytes)


class _OpenRuns:
    """Iterate to get steps: the rows of a step, in no order among themselves, are not later than those of the next."""

    def __init__(self, lake: Lake, view_set: ViewSet, parts: Sequence[Partition]) -> None:
        self._lake = lake
        self._view_set = view_set
        self._tie = count()
        # What is not open yet, by its earliest time: whole files first, then the row groups that they consist of.
        self._closed: list[tuple[int, int, Partition | tuple[_PartFile, int]]] = []
        for part in parts:
            if part.min_event_time is not None:
                heapq.heappush(self._closed, (part.min_event_time, next(self._tie), part))
        self._open: list[_Run] = []

    def __iter__(self) -> Iterator[list[pa.Table]]:
        while True:
            self._open_due()
            if not self._open:
                return
            frontier = self._frontier()
            yield [taken for run in self._open if (taken := run.take_until(frontier)) is not None]
            self._open = [run for run in self._open if not run.is_empty]

    def _frontier(self) -> int | None:
        """The time up to which all rows of the open runs are in their buffers; None when all rows are."""
        return min((run.last_time for run in self._open if not run.is_last), default=None)

    def _has_room(self) -> bool:
        return len(self._open) < MAX_OPEN_RUNS and sum(run.nbytes for run in self._open) < MAX_OPEN_BYTES

    def _open_due(self) -> None:
        """Open everything that may hold rows which belong into the next step."""
        while self._closed and self._has_room():
            frontier = self._frontier()
            if frontier is None and self._open:
                frontier = max(run.last_time for run in self._open)
            if frontier is not None and self._closed[0][0] > frontier:
                return
            _, _, source = heapq.heappop(self._closed)
            if isinstance(source, Partition):
                file = _PartFile(self._lake, self._view_set, source)
                for group in range(file.num_row_groups):
                    heapq.heappush(self._closed, (file.min_time(group), next(self._tie), (file, group)))
            else:
                file, group = source
                run = _Run(file.batches(group), self._view_set.min_column)
                if not run.is_empty:
                    self._open.append(run)


class _PartFile:
    """The Parquet file of a partition, read row group by row group."""

    def __init__(self, lake: Lake, view_set: ViewSet, part: Partition) -> None:
        self._part = part
        self._column = view_set.schema.get_field_index(view_set.min_column)
        try:
            self._file = pq.ParquetFile(ObjectReader(lake, part), pre_buffer=True)
        except pa.ArrowException as error:
            raise self._broken(str(error)) from error
        metadata = self._file.metadata
        if metadata.num_rows != part.num_rows:
            raise self._broken(f"{metadata.num_rows} rows where {part.num_rows} were written")
        if not self._file.schema_arrow.equals(view_set.schema):
            raise self._broken(f"unexpected schema {self._file.schema_arrow}")

    @property
    def num_row_groups(self) -> int:
        return int(self._file.metadata.num_row_groups)

    def min_time(self, group: int) -> int:
        statistics = self._file.metadata.row_group(group).column(self._column).statistics
        if statistics is None or not statistics.has_min_max:
            raise self._broken(f"row group {group} lacks the bounds of its times")
        return int(statistics.min_raw)

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False)
        except pa.ArrowException as error:
            raise self._broken(str(error)) from error

    def _broken(self, what: str) -> LakeCorrupt:
        return LakeCorrupt(f"file {self._part.file_path} of partition {self._part.partition_id}: {what}")


class ObjectReader(io.RawIOBase):
    """A partition's file in the object store as a seekable file that reads only what it is asked for."""

    def __init__(self, lake: Lake, part: Partition) -> None:
        super().__init__()
        if part.file_path is None:
            raise LakeError(f"partition {part.partition_id} has no file")
        self._lake = lake
        self._path = part.file_path
        self._size = part.file_size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._position, 0)
        length = left if size < 0 else min(size, left)
        if length == 0:
            return b""
        data = self._lake.objects.get_ranges(self._path, [self._position], [length])[0]
        self._position += length
        return data
