"""Rows of blocks that queries decoded lately, so that a dashboard that asks each second decodes a block once.

Must never give rows that a fresh look would not: whatever the rows depend on is part of the key.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from micromegas.lake import BlockRow, Lake
from micromegas.views.block_decoding import ROW_GROUP_BYTES, ROW_GROUP_ROWS, DecodedBlocks, record_failures
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# Each kept block costs at least this, rows or not.
_ENTRY_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Key:
    """A block's rows in a view, as the code of `schema_hash` makes them.

    What they are made of (payload, stream, process, and the clock as far as the block goes) never changes.
    """

    block_id: str
    schema_hash: bytes


class HotBlocks:
    """Decoded blocks of global views, the least recently used ones dropped first. Thread-safe, shared by queries."""

    def __init__(self, lake: Lake, max_bytes: int) -> None:
        self._lake = lake
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, pa.RecordBatch] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()

    def rows(self, view_set: ViewSet, blocks: Sequence[BlockRow]) -> Iterator[pa.RecordBatch]:
        """Rows of the blocks of a global view, in batches of about a row group; undecodable blocks are recorded."""
        yield from _grouped(self._each(view_set, blocks))

    def _each(self, view_set: ViewSet, blocks: Sequence[BlockRow]) -> Iterator[pa.RecordBatch]:
        unknown = []
        for block in blocks:
            batch = self._get(_Key(block.block_id, view_set.schema_hash))
            if batch is None:
                unknown.append(block)
            elif batch.num_rows:
                yield batch
        if unknown:
            yield from self._decode(view_set, unknown)

    def _decode(self, view_set: ViewSet, blocks: Sequence[BlockRow]) -> Iterator[pa.RecordBatch]:
        # A batch per block, to be kept each by itself; what is wrong with a block is known before its batch comes.
        decoded = DecodedBlocks(self._lake, view_set, GLOBAL_INSTANCE, blocks, row_group_rows=1)
        rowless = {block.block_id for block in blocks}
        for batch in decoded:
            block_id = batch.column("block_id")[0].as_py()
            rowless.discard(block_id)
            if not decoded.failures or decoded.failures[-1].block_id != block_id:
                self._keep(_Key(block_id, view_set.schema_hash), batch)
            yield batch
        for block_id in rowless.difference(failure.block_id for failure in decoded.failures):
            self._keep(_Key(block_id, view_set.schema_hash), _no_rows(view_set))
        record_failures(self._lake, view_set, decoded.failures)

    def _get(self, key: _Key) -> pa.RecordBatch | None:
        with self._guard:
            batch = self._kept.get(key)
            if batch is not None:
                self._kept.move_to_end(key)
            return batch

    def _keep(self, key: _Key, batch: pa.RecordBatch) -> None:
        size = batch.nbytes + _ENTRY_BYTES
        if size > self._max_bytes:
            return
        with self._guard:
            if key in self._kept:
                return
            self._kept[key] = batch
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.nbytes + _ENTRY_BYTES


def _no_rows(view_set: ViewSet) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in view_set.schema], schema=view_set.schema)


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about a row group: thousands of small ones would cost more than their rows."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield _joined(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield _joined(pending)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()[0]
