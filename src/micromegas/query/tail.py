"""The blocks of a global view that no partition covers yet, decoded for one query.

Must never take a block that a chosen partition holds, nor one that becomes visible after the query began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from micromegas.lake import BlockRow, Lake, Partition
from micromegas.query.bounds import Bounds
from micromegas.query.errors import QueryError
from micromegas.views.block_decoding import DecodedBlocks, decoded_from
from micromegas.views.block_groups import EVENT_TIME_MARGIN
from micromegas.views.coverage import uncovered
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# Beyond so many gaps one listing of everything between the first and the last is cheaper.
_MAX_LISTINGS = 32


def tail_blocks(
    lake: Lake, view_set: ViewSet, partitions: Sequence[Partition], watermark: int, bounds: Bounds
) -> list[BlockRow]:
    """Blocks up to `watermark` outside of the insert ranges of `partitions`, which are all current ones of the view,
    that may hold rows within `bounds`; in insert order."""
    gaps = uncovered(partitions, 0, watermark + 1)
    if not gaps or bounds.time.is_empty:
        return []
    listings = [(gap.begin, gap.end) for gap in gaps]
    if len(listings) > _MAX_LISTINGS:
        listings = [(listings[0][0], listings[-1][1])]
    events = bounds.time.widened(EVENT_TIME_MARGIN)
    processes = bounds.allowed("process_id")
    blocks: list[BlockRow] = []
    for begin, end in listings:
        blocks += lake.metadata.blocks(
            tag=decoded_from(view_set).stream_tag,
            process_id=bounds.only_id("process_id"),
            insert_begin=begin,
            insert_end=end,
            event_begin=events.begin,
            event_end=events.end,
        )
    covered = _Covered(partitions)
    return [
        block
        for block in blocks
        if not covered.holds(block.insert_time) and (processes is None or block.process_id in processes)
    ]


class _Covered:
    """Walks the partitions beside blocks that come in insert order."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._ranges = sorted((each.begin_insert_time, each.end_insert_time) for each in partitions)
        self._next = 0

    def holds(self, insert_time: int) -> bool:
        while self._next < len(self._ranges) and self._ranges[self._next][1] <= insert_time:
            self._next += 1
        return self._next < len(self._ranges) and self._ranges[self._next][0] <= insert_time


def tail_batches(lake: Lake, view_set: ViewSet, blocks: Sequence[BlockRow], max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Rows of the blocks; what can't be decoded is recorded. Raises `QueryError` when the payloads are too many."""
    payload_bytes = sum(block.payload_size for block in blocks)
    if payload_bytes > max_bytes:
        raise QueryError(
            "exhausted",
            f"{view_set.name}: {len(blocks)} blocks of {payload_bytes} bytes in range are not in partitions yet; "
            "let the daemon catch up or narrow the range",
        )
    decoded = DecodedBlocks(lake, view_set, GLOBAL_INSTANCE, blocks)
    yield from decoded
    if decoded.failures:
        lake.metadata.record_block_errors(
            view_set.name,
            [(failure.block_id, failure.error) for failure in decoded.failures],
            decoded_from(view_set).decoder_version,
        )
