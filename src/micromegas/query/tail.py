"""The blocks of a global view that no partition covers yet.

Must never take a block that a partition holds, nor one that becomes visible after the query began.
"""

from __future__ import annotations

from collections.abc import Sequence

from micromegas.lake import BlockRow, Lake
from micromegas.query.bounds import Bounds
from micromegas.query.errors import QueryError
from micromegas.views.block_decoding import decoded_from
from micromegas.views.view_set import ViewSet

MAX_TAIL_BLOCKS = 50_000


def tail_blocks(
    lake: Lake, view_set: ViewSet, gaps: Sequence[tuple[int, int]], bounds: Bounds, max_bytes: int
) -> list[BlockRow]:
    """Blocks in `gaps`, the ranges of insert time that no partition covers, which may hold rows within `bounds`; in
    insert order. Lists no more than `MAX_TAIL_BLOCKS`; raises `QueryError` when these or their payloads are too many.
    """
    if not gaps or bounds.time.is_empty:
        return []
    blocks = lake.metadata.blocks_within(
        gaps,
        MAX_TAIL_BLOCKS + 1,
        tag=decoded_from(view_set).stream_tag,
        process_id=bounds.only_id("process_id"),
        event_begin=bounds.time.begin,
        event_end=bounds.time.end,
    )
    if len(blocks) > MAX_TAIL_BLOCKS:
        raise _too_much(view_set, f"more than {MAX_TAIL_BLOCKS} blocks")
    processes = bounds.allowed("process_id")
    wanted = [block for block in blocks if processes is None or block.process_id in processes]
    payload_bytes = sum(block.payload_size for block in wanted)
    if payload_bytes > max_bytes:
        raise _too_much(view_set, f"{len(wanted)} blocks of {payload_bytes} bytes")
    return wanted


def _too_much(view_set: ViewSet, what: str) -> QueryError:
    return QueryError(
        "exhausted",
        f"{view_set.name}: {what} in range are not in partitions yet; let the daemon catch up or narrow the range",
    )
