"""Writes one partition: rows to a Parquet file, the file to the object store, the row to the metadata, in this order.

A killed writer must leave nothing behind but an object that is already listed for deletion.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from micromegas.lake import BlockRow, Lake, LeaseClaim, Partition, PartitionConflict, new_partition_id
from micromegas.views.block_decoding import (
    ROW_GROUP_BYTES,
    ROW_GROUP_ROWS,
    DecodedBlocks,
    decoded_from,
    record_failures,
)
from micromegas.views.carried import CarriedIn, CarriedOut, HandedOn, TickOrder, in_tick_order
from micromegas.views.time_order import in_time_order
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# A writer that needs longer than this between announcing its file and committing it may find it swept away.
PENDING_LIFETIME = 6 * 3600 * 1_000_000_000
_PAGE_BYTES = 128 * 1024
# zstd's. What is merged again soon is written fast; the other takes 5 to 8 % less room for a fifth more CPU time.
_PASSING_LEVEL = 1
_LASTING_LEVEL = 6


@dataclass(frozen=True, slots=True)
class InsertRange:
    """Half-open range of insert time in ns since the epoch."""

    begin: int
    end: int


def source_hash(blocks: Iterable[BlockRow]) -> bytes:
    """What a partition was made of: order-independent over (block_id, nb_objects), with the count in front."""
    total = 0
    count = 0
    for block in blocks:
        digest = hashlib.sha256(f"{block.block_id}:{block.nb_objects}".encode()).digest()
        total = (total + int.from_bytes(digest, "little")) % 2**256
        count += 1
    return count.to_bytes(8, "little") + total.to_bytes(32, "little")


def sum_source_hashes(hashes: Iterable[bytes]) -> bytes:
    """The source hash of the union of disjoint sets of blocks."""
    total = 0
    count = 0
    for value in hashes:
        count += source_count(value)
        total = (total + int.from_bytes(value[8:], "little")) % 2**256
    return count.to_bytes(8, "little") + total.to_bytes(32, "little")


def source_count(value: bytes) -> int:
    """How many blocks a source hash stands for."""
    return int.from_bytes(value[:8], "little")


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """What a finished file holds, or would hold; times in ns since the epoch, None without rows."""

    num_rows: int
    min_event_time: int | None
    max_event_time: int | None


class RowBounds:
    """The bounds of rows that are not written. A clock that is set back makes rows that end before they begin; these
    are within the bounds, too."""

    def __init__(self, view_set: ViewSet) -> None:
        self._view_set = view_set
        self._min: int | None = None
        self._max: int | None = None

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take the rows into account."""
        if rows.num_rows == 0:
            return
        for name in {self._view_set.min_column, self._view_set.max_column}:
            bounds = pc.min_max(rows[name])
            lowest, highest = bounds["min"].value, bounds["max"].value
            if lowest is not None:
                self._min = lowest if self._min is None else min(self._min, lowest)
                self._max = highest if self._max is None else max(self._max, highest)

    def close(self) -> WrittenRows:
        return WrittenRows(0, self._min, self._max)


class RowFile:
    """A local Parquet file being written, with exact row groups and the bounds of its rows. Close it exactly once.

    A row group, once read, takes no more than about `ROW_GROUP_BYTES`, however small it is in the file. `lasting`: the
    file is kept for months, so room counts for more than the time to write it.
    """

    def __init__(self, path: Path, view_set: ViewSet, *, lasting: bool = False) -> None:
        self._view_set = view_set
        level = _LASTING_LEVEL if lasting else _PASSING_LEVEL
        self._writer = pq.ParquetWriter(path, view_set.schema, **_writer_options(view_set.schema, level))
        self._num_rows = 0
        self._bounds = RowBounds(view_set)

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows of the view's schema as one row group, or as several where they are too many or too long for
        one."""
        if rows.num_rows == 0:
            return
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        # Batches with different dictionaries would be written without dictionary encoding.
        table = table.unify_dictionaries()
        for piece in _bounded(table):
            groups = math.ceil(piece.num_rows / (2 * ROW_GROUP_ROWS))
            self._writer.write_table(piece, row_group_size=math.ceil(piece.num_rows / groups))
        self._num_rows += table.num_rows
        self._bounds.write(table)

    def close(self) -> WrittenRows:
        self._writer.close()
        return replace(self._bounds.close(), num_rows=self._num_rows)


def _bounded(table: pa.Table) -> Iterator[pa.Table]:
    """The rows in pieces whose plain columns (dictionaries are small) take at most `ROW_GROUP_BYTES` each."""
    plain = [column for column in table.columns if not pa.types.is_dictionary(column.type)]
    if table.num_rows < 2 or sum(column.nbytes for column in plain) <= ROW_GROUP_BYTES:
        yield table
        return
    middle = table.num_rows // 2
    yield from _bounded(table.slice(0, middle))
    yield from _bounded(table.slice(middle))


@dataclass(frozen=True, slots=True)
class PartitionSlot:
    """Where a partition belongs. `replaces` are the ids of all partitions of the instance that overlap the range;
    `claim` is the lease under which it is built, used up by its commit."""

    view_set: ViewSet
    instance_id: str
    insert_range: InsertRange
    replaces: frozenset[str]
    claim: LeaseClaim | None = None


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A closed local file with what its partition's row has to say."""

    path: Path
    rows: WrittenRows
    source_hash: bytes
    failed_blocks: int
    handed_on: HandedOn | None = None
    has_rows: bool = True


def build_partition(
    lake: Lake, slot: PartitionSlot, blocks: Sequence[BlockRow], carried_in: CarriedIn | None = None
) -> Partition:
    """Decode `blocks` (all visible ones of the instance with an insert time in the slot's range) and commit the
    partition. `carried_in` is what a view needs whose rows reach over partitions.

    Undecodable blocks are recorded, and those that were are forgotten where they can be decoded now. Raises
    `PartitionConflict` when the slot's `replaces` is not true any more, `LakeUnavailable` when a store doesn't answer.
    """
    view_set = slot.view_set
    decoded = DecodedBlocks(lake, view_set, slot.instance_id, blocks, carried_in=carried_in)
    has_rows = carried_in is None or carried_in.with_rows
    with lake.scratch.temporary() as folder:
        local = folder / "rows.parquet"
        row_file = RowFile(local, view_set) if has_rows else RowBounds(view_set)
        try:
            for batch in decoded:
                rows = pa.Table.from_batches([batch])
                # Rows of many processes lie in order of arrival; by time they compress better and are found faster.
                row_file.write(
                    in_time_order(rows, view_set.min_column) if slot.instance_id == GLOBAL_INSTANCE else rows
                )
        finally:
            written = row_file.close()
        record_failures(lake, view_set, decoded.failures)
        failed = {failure.block_id for failure in decoded.failures}
        ids = (block.block_id for block in blocks)
        mended = lake.metadata.blocks_in_error(view_set.name, ids, with_clock=True) - failed
        source, handed_on = _source_and_state(slot, blocks, carried_in, decoded.carried_out)
        finished = FinishedFile(local, written, source, len(failed), handed_on, has_rows)
        partition = commit_partition(lake, slot, finished)
    if mended:
        lake.metadata.clear_block_errors(view_set.name, mended)
    return partition


def _source_and_state(
    slot: PartitionSlot, blocks: Sequence[BlockRow], carried_in: CarriedIn | None, carried_out: CarriedOut | None
) -> tuple[bytes, HandedOn | None]:
    """The source hash of a partition, and what it hands on."""
    if carried_in is None:
        return source_hash(blocks), None
    if carried_in.remembered is not None:
        return carried_in.remembered.blocks_hash + carried_in.source_suffix, carried_in.remembered.handed_on
    if carried_out is None:
        raise TypeError(f"the builder of {slot.view_set.name} hands nothing on")
    latest: dict[str, TickOrder] = {}
    for block in blocks if decoded_from(slot.view_set).sorted_by_ticks else ():
        latest[block.stream_id] = max(in_tick_order(block), latest.get(block.stream_id, in_tick_order(block)))
    objects = sum(block.nb_objects for block in blocks)
    handed_on = carried_out.handed_on(slot.insert_range.end, objects, latest)
    return source_hash(blocks) + carried_in.source_suffix, handed_on


def commit_partition(lake: Lake, slot: PartitionSlot, finished: FinishedFile) -> Partition:
    """Store the finished file durably and swap the partition in; without rows, an empty partition and no file."""
    view_set, instance_id, insert_range = slot.view_set, slot.instance_id, slot.insert_range
    written, handed_on = finished.rows, finished.handed_on
    partition_id = new_partition_id()
    path: str | None = None
    size = 0
    if written.num_rows:
        path = partition_path(view_set.name, instance_id, insert_range.begin, partition_id)
        lake.metadata.add_expiring_object(path, lake.clock() + PENDING_LIFETIME)
        size = lake.objects.put_file(finished.path, path)
    partition = Partition(
        partition_id=partition_id,
        view_set=view_set.name,
        instance_id=instance_id,
        begin_insert_time=insert_range.begin,
        end_insert_time=insert_range.end,
        min_event_time=written.min_event_time,
        max_event_time=written.max_event_time,
        updated=lake.clock(),
        file_path=path,
        file_size=size,
        num_rows=written.num_rows,
        schema_hash=view_set.schema_hash if finished.has_rows else view_set.state_hash,
        source_hash=finished.source_hash,
        failed_blocks=finished.failed_blocks,
        carries=None if handed_on is None else handed_on.summary.to_bytes(),
    )
    state = None if handed_on is None else handed_on.state
    try:
        lake.metadata.replace_partitions(
            view_set.name, instance_id, slot.replaces, partition, slot.claim, carried_state=state
        )
    except PartitionConflict:
        if path is not None:
            # Nobody can have adopted it but us, so there is no need to let it wait for the sweep.
            lake.objects.delete([path])
            lake.metadata.forget_expiring([path])
        raise
    return partition


def partition_path(view_set: str, instance_id: str, begin_insert_time: int, partition_id: str) -> str:
    """`views/{set}/{instance}/{YYYY-MM-DD}/{HH-MM-SS}_{id}.parquet`, date and time of the range's begin."""
    begin = datetime.fromtimestamp(begin_insert_time // 1_000_000_000, UTC)
    return f"views/{view_set}/{instance_id}/{begin:%Y-%m-%d}/{begin:%H-%M-%S}_{partition_id}.parquet"


def _writer_options(schema: pa.Schema, level: int) -> dict[str, object]:
    # Numbers that mostly grow (times, ids) take the least room as differences; all else repeats and wants a dictionary.
    deltas = {
        field.name: "DELTA_BINARY_PACKED"
        for field in schema
        if pa.types.is_timestamp(field.type) or pa.types.is_int64(field.type)
    }
    return {
        "version": "2.6",
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [field.name for field in schema if field.name not in deltas],
        "column_encoding": deltas,
        "write_statistics": True,
        "write_page_index": True,
        "data_page_size": _PAGE_BYTES,
        "use_compliant_nested_type": False,
        "store_schema": True,
    }
