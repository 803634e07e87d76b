"""The first partitions of a global view: whatever insert time is closed and not covered yet, however long ago it was.

It must never cover a range that could still get blocks, and never touch a partition that is up to date.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from micromegas.daemon.insert_clock import HOUR, MINUTE, SECOND, Clock, close_until, closed_end, floor_to
from micromegas.daemon.source_blocks import lost_blocks
from micromegas.lake import BlockRow, Lake, LakeUnavailable, LeaseClaim, PartitionConflict
from micromegas.query.build_leases import BuildLeases
from micromegas.views.block_decoding import decoded_from
from micromegas.views.coverage import uncovered
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# A piece is read as a stream; these bound the list of its blocks, and what a killed daemon has to do again.
MAX_PIECE_OBJECTS = 4_000_000
MAX_PIECE_BYTES = 512 * 1024 * 1024
MAX_PIECE_BLOCKS = 50_000

logger = logging.getLogger(__name__)


class FreshPartitions:
    """Covers one global view, piece by piece: seconds while it keeps up, minutes to an hour after an absence.

    A piece never crosses a whole hour, nor a whole minute unless it consists of whole minutes, so that the merges find
    partitions which fit into their buckets. Ranges in which nothing at all was ingested stay uncovered (they cost
    nothing to look at); ranges with blocks of other tags only get a partition without rows, minute by minute, so that
    those blocks are not looked through for ever.
    """

    def __init__(self, lake: Lake, view_set: ViewSet, clock: Clock, leases: BuildLeases | None = None) -> None:
        """With `leases` every piece is claimed, so that several daemons share a backlog."""
        self._lake = lake
        self._view_set = view_set
        self._tag = decoded_from(view_set).stream_tag
        self._clock = clock
        self._leases = leases

    def cover(self, begin: int, keep_going: Callable[[], bool], until: int | None = None) -> int:
        """Cover what is closed from insert time `begin` (ns) on, at most to `until`; returns how many pieces failed.

        A piece that fails is logged and tried again by the next call; the others are not held up by it. Raises
        `LakeUnavailable` when a store doesn't answer.
        """
        failures = 0
        end = self._end() if until is None else min(until, self._end())
        for piece, blocks in self._pieces(InsertRange(begin, end), keep_going):
            try:
                self._build(piece, blocks)
            except LakeUnavailable:
                raise
            except Exception:
                logger.exception("%s: insert range [%d, %d) failed", self._view_set.name, piece.begin, piece.end)
                failures += 1
        return failures

    def fill(self, insert_range: InsertRange, keep_going: Callable[[], bool]) -> int:
        """Cover what is not covered of a closed range; returns how many partitions that made.

        Raises what the first piece that fails raises.
        """
        made = 0
        for piece, blocks in self._pieces(insert_range, keep_going):
            made += self._build(piece, blocks)
        return made

    def _pieces(
        self, insert_range: InsertRange, keep_going: Callable[[], bool]
    ) -> Iterator[tuple[InsertRange, list[BlockRow]]]:
        """The pieces with blocks in what is not covered of a range, each with the blocks of the view in it."""
        # One of another schema whose blocks are gone can't be made again: it stays what it is.
        partitions = [
            partition
            for partition in self._lake.metadata.partitions(
                self._view_set.name,
                GLOBAL_INSTANCE,
                insert_begin=insert_range.begin,
                insert_end=insert_range.end,
            )
            if partition.schema_hash in self._view_set.readable or lost_blocks(self._lake, self._view_set, [partition])
        ]
        for gap in uncovered(partitions, insert_range.begin, insert_range.end):
            position = gap.begin
            while keep_going():
                first = self._first_block(position, gap.end)
                if first is None:
                    break
                position = max(position, floor_to(first.insert_time, MINUTE))
                piece, blocks = self._piece(position, gap.end)
                yield piece, blocks
                position = piece.end

    def _end(self) -> int:
        """Where the last closed second ends."""
        closed = closed_end(self._lake)
        end = floor_to(closed, SECOND)
        if end == closed:
            return end
        second_end = end + SECOND
        if closed - SECOND > self._clock():
            # Insert time is ahead of the clock (which was set back): it creeps, and no second will ever be full.
            return closed
        waiting = self._lake.metadata.blocks(tag=self._tag, insert_begin=end, limit=1)
        if waiting and close_until(self._lake, second_end, self._clock):
            return second_end
        return end

    def _first_block(self, begin: int, end: int) -> BlockRow | None:
        """The first block of any tag in the range."""
        if begin >= end:
            return None
        blocks = self._lake.metadata.blocks(insert_begin=begin, insert_end=end, limit=1)
        return blocks[0] if blocks else None

    def _piece(self, begin: int, end: int) -> tuple[InsertRange, list[BlockRow]]:
        """The next piece from `begin` on, and all blocks of the view in it."""
        piece = InsertRange(begin, piece_end(begin, end))
        blocks = self._blocks(piece, MAX_PIECE_BLOCKS + 1)
        excess = first_in_excess(blocks)
        if excess is None:
            return piece, blocks
        cut = floor_to(excess.insert_time, MINUTE)
        if cut <= begin:
            cut = floor_to(excess.insert_time, SECOND)
        if cut <= begin:
            # Seconds are not parted: however much there is in one, it is read as a stream.
            piece = InsertRange(begin, min(piece.end, floor_to(begin, SECOND) + SECOND))
            return piece, self._blocks(piece, None)
        return InsertRange(begin, cut), [block for block in blocks if block.insert_time < cut]

    def _blocks(self, piece: InsertRange, limit: int | None) -> list[BlockRow]:
        return self._lake.metadata.blocks(tag=self._tag, insert_begin=piece.begin, insert_end=piece.end, limit=limit)

    def _build(self, piece: InsertRange, blocks: Sequence[BlockRow]) -> bool:
        """Make the partition of a piece; False when there is nothing to make, or nothing left to make."""
        if not blocks and piece.end % MINUTE:
            return False
        if self._leases is None:
            return self._build_claimed(piece, blocks, None)
        claim = self._leases.take(f"{self._view_set.name}/{GLOBAL_INSTANCE}/{piece.begin}")
        if claim is None:
            # Another daemon is at it.
            return False
        made = False
        try:
            made = self._build_claimed(piece, blocks, claim)
        finally:
            self._leases.give_back(claim, used_up=made)
        return made

    def _build_claimed(self, piece: InsertRange, blocks: Sequence[BlockRow], claim: LeaseClaim | None) -> bool:
        present = self._lake.metadata.partitions(
            self._view_set.name, GLOBAL_INSTANCE, insert_begin=piece.begin, insert_end=piece.end
        )
        if any(partition.schema_hash in self._view_set.readable for partition in present):
            return False
        if lost_blocks(self._lake, self._view_set, present):
            return False
        # What is left are partitions of a schema that no query of this release reads.
        replaces = frozenset(partition.partition_id for partition in present)
        try:
            build_partition(self._lake, PartitionSlot(self._view_set, GLOBAL_INSTANCE, piece, replaces, claim), blocks)
        except PartitionConflict as conflict:
            logger.debug("%s: another daemon was faster: %s", self._view_set.name, conflict)
            return False
        return True


def piece_end(begin: int, end: int) -> int:
    """Where the piece from `begin` on ends, at most at `end`: at the next whole minute, or when it begins at a whole
    minute and more than this one is left, at the last whole minute of the same hour."""
    next_minute = floor_to(begin, MINUTE) + MINUTE
    if begin % MINUTE or end <= next_minute:
        return min(end, next_minute)
    return min(floor_to(end, MINUTE), floor_to(begin, HOUR) + HOUR)


def first_in_excess(blocks: Sequence[BlockRow]) -> BlockRow | None:
    """The first block that goes beyond the limits of a piece; never the very first."""
    objects = 0
    size = 0
    for position, block in enumerate(blocks):
        objects += max(block.nb_objects, 0)
        size += block.payload_size
        if position and (objects > MAX_PIECE_OBJECTS or size > MAX_PIECE_BYTES or position >= MAX_PIECE_BLOCKS):
            return block
    return None
