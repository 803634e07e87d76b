"""The blocks of a global view that no partition covers yet: which are asked for, and how many may be decoded.

Must never let a part of them pass for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from micromegas.lake import BlockRow, TailConditions
from micromegas.query.bounds import Bounds
from micromegas.query.errors import QueryError
from micromegas.views.block_decoding import decoded_from
from micromegas.views.view_set import ViewSet

MAX_TAIL_BLOCKS = 50_000


def tail_conditions(view_set: ViewSet, bounds: Bounds) -> TailConditions:
    """Those of blocks that may hold rows within `bounds`."""
    return TailConditions(
        decoded_from(view_set).stream_tag,
        MAX_TAIL_BLOCKS + 1,
        bounds.only_id("process_id"),
        bounds.time.begin,
        bounds.time.end,
    )


def tail_blocks(view_set: ViewSet, found: Sequence[BlockRow], bounds: Bounds, max_bytes: int) -> list[BlockRow]:
    """Those of the blocks found by `tail_conditions` which may hold rows within `bounds`. Raises `QueryError` when they
    are more than `MAX_TAIL_BLOCKS`, or their payloads too large."""
    if len(found) > MAX_TAIL_BLOCKS:
        raise _too_much(view_set, f"more than {MAX_TAIL_BLOCKS} blocks")
    processes = bounds.allowed("process_id")
    wanted = [block for block in found if processes is None or block.process_id in processes]
    payload_bytes = sum(block.payload_size for block in wanted)
    if payload_bytes > max_bytes:
        raise _too_much(view_set, f"{len(wanted)} blocks of {payload_bytes} bytes")
    return wanted


def _too_much(view_set: ViewSet, what: str) -> QueryError:
    return QueryError(
        "exhausted",
        f"{view_set.name}: {what} in range are not in partitions yet; let the daemon catch up or narrow the range",
    )
