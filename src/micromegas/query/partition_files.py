"""Checks that the files of partitions are what the metadata says, because the engine skips a missing file in silence.

A partition file that is missing or broken must become an error, never fewer rows.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas.lake import Lake, LakeCorrupt, Partition
from micromegas.query.errors import QueryError

_MAX_KNOWN = 100_000
_FOOTER_GUESS = 64 * 1024
_TRAILER = 8
_REMOTE_THREADS = 32


class PartitionFiles:
    """Looks at each file before every query that reads it, and at its footer the first time. Thread-safe."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._footers_seen: OrderedDict[str, None] = OrderedDict()
        self._guard = threading.Lock()
        self._threads = ThreadPoolExecutor(
            _REMOTE_THREADS if lake.objects.local_root is None else 1, thread_name_prefix="partition-check"
        )

    def check(self, partitions: Sequence[Partition]) -> None:
        """Raises `QueryError` naming the first partition whose file isn't whole."""
        if self._lake.objects.local_root is not None:
            for partition in partitions:
                self._check(partition)
        else:
            for _ in self._threads.map(self._check, partitions):
                pass

    def close(self) -> None:
        self._threads.shutdown()

    def _check(self, partition: Partition) -> None:
        path = partition.file_path
        if path is None:
            return
        size = self._lake.objects.size(path)
        if size is None:
            raise _broken(partition, "is missing")
        if size != partition.file_size:
            raise _broken(partition, f"has {size} bytes where {partition.file_size} were written")
        with self._guard:
            if path in self._footers_seen:
                self._footers_seen.move_to_end(path)
                return
        try:
            rows = self._footer_rows(path, size)
        except (pa.ArrowException, LakeCorrupt, OSError) as error:
            raise _broken(partition, f"has an unreadable footer: {error}") from error
        if rows != partition.num_rows:
            raise _broken(partition, f"has {rows} rows where {partition.num_rows} were written")
        with self._guard:
            self._footers_seen[path] = None
            if len(self._footers_seen) > _MAX_KNOWN:
                self._footers_seen.popitem(last=False)

    def _footer_rows(self, path: str, size: int) -> int:
        tail = self._tail(path, size, min(size, _FOOTER_GUESS))
        needed = int.from_bytes(tail[-_TRAILER:-4], "little") + _TRAILER
        if needed > len(tail):
            if needed > size:
                raise LakeCorrupt("its length is beyond the file")
            tail = self._tail(path, size, needed)
        return int(pq.read_metadata(io.BytesIO(tail)).num_rows)

    def _tail(self, path: str, size: int, length: int) -> bytes:
        return self._lake.objects.get_ranges(path, [size - length], [length])[0]


def _broken(partition: Partition, what: str) -> QueryError:
    return QueryError(
        "internal",
        f"file of partition {partition.partition_id} of {partition.view_set}/{partition.instance_id} {what}; "
        f"the answer would lack {partition.num_rows} rows",
    )
