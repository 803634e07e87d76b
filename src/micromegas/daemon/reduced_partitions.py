"""The partitions of a view defined by SQL: first those of whole minutes, then those of hours and days made of them.

A range is covered only when nothing can be inserted into it any more; every row of a source counts in one partition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from micromegas.daemon.fresh_partitions import MAX_PIECE_BLOCKS, first_in_excess, piece_end
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND, Clock, close_until, closed_end, floor_to
from micromegas.daemon.merge_buckets import TIERS, Tier, buckets_to_merge
from micromegas.lake import BlockRow, Lake, LakeUnavailable, LeaseClaim, Partition, PartitionConflict
from micromegas.query import Reductions, ReductionStopped
from micromegas.query.build_leases import BuildLeases
from micromegas.views.coverage import uncovered
from micromegas.views.partition_writer import (
    FinishedFile,
    InsertRange,
    PartitionSlot,
    RowFile,
    commit_partition,
    source_count,
    source_hash,
    sum_source_hashes,
)
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

# Gives the partitions of the sources the time to be there: rows are read from them, not decoded a second time.
SETTLE = 2 * SECOND
# Sources are covered in order: behind so many pieces that they lack, they lack everything.
MAX_UNREADY = 3

logger = logging.getLogger(__name__)

KeepGoing = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range to be covered, with the blocks that its rows are made of."""

    insert_range: InsertRange
    blocks: Sequence[BlockRow]


@dataclass(frozen=True, slots=True)
class _Origin:
    """What rows are made of: the hash of the blocks, and how many of them give no rows, or not all."""

    source_hash: bytes
    failed_blocks: int


@dataclass(frozen=True, slots=True)
class _Making:
    """A partition to be made: of `parts`, and of the sources where they leave gaps, in place of `replaced`, which are
    all that overlap its range."""

    insert_range: InsertRange
    parts: Sequence[Partition]
    replaced: Sequence[Partition]
    origin: _Origin


class ReducedPartitions:
    """Covers one view defined by SQL, and merges its partitions up to the largest bucket of its definition.

    What a killed daemon had not committed is simply not covered. Insert times in which nothing came between two pieces
    are covered with them, so that few ranges are left for queries to look at.
    """

    def __init__(
        self, lake: Lake, view_set: ViewSet, reductions: Reductions, clock: Clock, leases: BuildLeases | None = None
    ) -> None:
        """With `leases` every partition is claimed before it is made, so that several daemons share the work."""
        if view_set.reduced is None:
            raise ValueError(f"view set {view_set.name} is not reduced from others")
        self.name = view_set.name
        self.definition = view_set.reduced.definition
        self._lake = lake
        self._view_set = view_set
        self._reductions = reductions
        self._clock = clock
        self._leases = leases
        # Only to tell each partition once.
        self._told: set[str] = set()
        self._sources = [each for each in reductions.made_of(view_set) if each.decoded is not None]
        self._between = reductions.reduced_below(view_set)
        # None reads blocks of all tags, as view `blocks` does.
        self._tags: list[str | None] = [each.decoded.stream_tag for each in self._sources if each.decoded is not None]
        if len(self._sources) < len(reductions.made_of(view_set)):
            self._tags = [None]
        lengths = [tier.name for tier in TIERS]
        self.tiers: Sequence[Tier] = TIERS[1 : lengths.index(self.definition.largest) + 1]
        """The merges of this view, above its minutes."""

    def cover(self, begin: int, keep_going: KeepGoing) -> int:
        """Cover the whole minutes that are closed from insert time `begin` (ns) on; returns how many pieces failed.

        A piece that fails is logged and tried again by the next call. Raises `LakeUnavailable` when a store doesn't
        answer.
        """
        failures = unready = 0
        for piece in self._pieces(begin):
            if not keep_going() or unready > MAX_UNREADY:
                break
            if not self._sources_cover(piece.insert_range):
                unready += 1
                continue
            unready = 0
            present = self._present(piece.insert_range)
            if any(partition.schema_hash == self._view_set.schema_hash for partition in present):
                continue
            # What is left are partitions of another definition: no query of this one reads them.
            if any(self._is_irreplaceable(partition) for partition in present):
                continue
            origin = self._origin(piece.blocks)
            failures += not self._made(_Making(piece.insert_range, (), present, origin), keep_going)
        return failures

    def mend(self, keep_going: KeepGoing) -> int:
        """Make those partitions again for which blocks were missing that can be decoded by now; returns how many
        failed. Raises `LakeUnavailable`."""
        failures = 0
        for partition in self._lake.metadata.partitions(self._view_set.name, GLOBAL_INSTANCE):
            if not partition.failed_blocks or partition.schema_hash != self._view_set.schema_hash:
                continue
            if not keep_going():
                break
            insert_range = InsertRange(partition.begin_insert_time, partition.end_insert_time)
            origin = self._origin(self._blocks(insert_range, None))
            if origin.source_hash != partition.source_hash or origin.failed_blocks >= partition.failed_blocks:
                continue
            # Rows of a view between may still lack what came back to its own sources: they are mended first.
            if not any(self._lacks_blocks(view_set, insert_range) for view_set in self._between):
                failures += not self._made(_Making(insert_range, (), [partition], origin), keep_going)
        return failures

    def merge(self, tier: Tier, keep_going: KeepGoing) -> int:
        """Merge the buckets of a tier that are due; returns how many failed. Raises `LakeUnavailable`."""
        failures = 0
        partitions = self._lake.metadata.partitions(self._view_set.name, GLOBAL_INSTANCE)
        for bucket in buckets_to_merge(partitions, tier, self._view_set.schema_hash, self._clock(), self.tiers):
            if not keep_going():
                break
            if not close_until(self._lake, bucket.insert_range.end, self._clock) or any(
                self._blocks(gap, 1) for gap in bucket.gaps
            ):
                continue
            origin = _Origin(
                sum_source_hashes(part.source_hash for part in bucket.parts),
                sum(part.failed_blocks for part in bucket.parts),
            )
            failures += not self._made(_Making(bucket.insert_range, bucket.parts, bucket.parts, origin), keep_going)
        return failures

    def join(self, bucket: InsertRange, keep_going: KeepGoing) -> Partition | None:
        """Make a closed bucket, which no partition sticks out of, one partition; None when it is, or holds nothing.
        What partitions of other definitions hold is made anew. Raises what `_make` does."""
        present = self._present(bucket)
        parts = [each for each in present if each.schema_hash == self._view_set.schema_hash]
        missing = [block for gap in uncovered(parts, bucket.begin, bucket.end) for block in self._blocks(gap, None)]
        if len(parts) == len(present) < 2 and not missing:
            return None
        new = self._origin(missing)
        origin = _Origin(
            sum_source_hashes([new.source_hash, *(part.source_hash for part in parts)]),
            new.failed_blocks + sum(part.failed_blocks for part in parts),
        )
        return self._make(_Making(bucket, parts, present, origin), keep_going)

    def make_again(self, bucket: InsertRange, keep_going: KeepGoing) -> Partition | None:
        """Make a closed bucket, which no partition sticks out of, from the sources alone, whatever is there; None when
        there is nothing. Raises what `_make` does."""
        present = self._present(bucket)
        blocks = self._blocks(bucket, None)
        if not blocks and not present:
            return None
        return self._make(_Making(bucket, (), present, self._origin(blocks)), keep_going)

    def lost_blocks(self, partition: Partition) -> int:
        """How many more blocks a partition was made of than are there."""
        present = self._blocks(InsertRange(partition.begin_insert_time, partition.end_insert_time), None)
        return max(0, source_count(partition.source_hash) - len(present))

    def _pieces(self, begin: int) -> Iterator[_Piece]:
        end = self._end()
        current = [
            partition
            for partition in self._lake.metadata.partitions(self._view_set.name, GLOBAL_INSTANCE)
            if partition.schema_hash == self._view_set.schema_hash
        ]
        ends = {partition.end_insert_time for partition in current}
        for gap in uncovered(current, begin, end):
            position = gap.begin
            while position < gap.end:
                found = self._lake.metadata.blocks(insert_begin=position, insert_end=gap.end, limit=1)
                if not found:
                    break
                first = floor_to(found[0].insert_time, MINUTE)
                if position == gap.begin and position not in ends:
                    position = max(position, first)
                idle = idle_end(position, first)
                if idle > position:
                    yield _Piece(InsertRange(position, idle), ())
                    position = idle
                    continue
                piece = self._piece(position, gap.end)
                yield piece
                position = piece.insert_range.end

    def _end(self) -> int:
        """Where the last closed minute ends."""
        end = floor_to(closed_end(self._lake), MINUTE)
        settled = floor_to(self._clock() - SETTLE, MINUTE)
        waits = settled > end and self._lake.metadata.blocks(insert_begin=end, insert_end=settled, limit=1)
        # Where nothing is being ingested any more, the last minute is over all the same.
        return settled if waits and close_until(self._lake, settled, self._clock) else end

    def _piece(self, begin: int, end: int) -> _Piece:
        piece = InsertRange(begin, piece_end(begin, end))
        blocks = self._blocks(piece, MAX_PIECE_BLOCKS + 1)
        excess = first_in_excess(blocks)
        if excess is None:
            return _Piece(piece, blocks)
        # Minutes are not parted: however much there is in one, the engine works it off within its budgets.
        piece = InsertRange(begin, max(floor_to(excess.insert_time, MINUTE), floor_to(begin, MINUTE) + MINUTE))
        return _Piece(piece, self._blocks(piece, None))

    def _blocks(self, insert_range: InsertRange, limit: int | None) -> list[BlockRow]:
        """Blocks that rows of the view are made of, in order of insert time."""
        found: dict[str, BlockRow] = {}
        for tag in self._tags:
            for block in self._lake.metadata.blocks(
                tag=tag, insert_begin=insert_range.begin, insert_end=insert_range.end, limit=limit
            ):
                found[block.block_id] = block
        return sorted(found.values(), key=lambda block: (block.insert_time, block.block_id))

    def _origin(self, blocks: Sequence[BlockRow]) -> _Origin:
        """To be asked before rows are read: what is mended in between is then mended here, too, by the next look."""
        ids = [block.block_id for block in blocks]
        failed = sum(len(self._lake.metadata.blocks_in_error(source.name, ids)) for source in self._sources)
        return _Origin(source_hash(blocks), failed)

    def _lacks_blocks(self, view_set: ViewSet, insert_range: InsertRange) -> bool:
        partitions = self._lake.metadata.partitions(
            view_set.name, GLOBAL_INSTANCE, insert_begin=insert_range.begin, insert_end=insert_range.end
        )
        return any(each.failed_blocks and each.schema_hash == view_set.schema_hash for each in partitions)

    def _sources_cover(self, insert_range: InsertRange) -> bool:
        """Whether the partitions of the sources hold all of their rows in the range."""
        for source in self._sources:
            partitions = [
                partition
                for partition in self._lake.metadata.partitions(
                    source.name, GLOBAL_INSTANCE, insert_begin=insert_range.begin, insert_end=insert_range.end
                )
                if partition.schema_hash in source.readable
            ]
            tag = source.decoded.stream_tag if source.decoded is not None else None
            for gap in uncovered(partitions, insert_range.begin, insert_range.end):
                if self._lake.metadata.blocks(tag=tag, insert_begin=gap.begin, insert_end=gap.end, limit=1):
                    return False
        return True

    def _is_irreplaceable(self, old: Partition) -> bool:
        """Whether a partition of another definition was made of more blocks than are there for this one."""
        if not self.lost_blocks(old):
            return False
        if old.partition_id not in self._told:
            self._told.add(old.partition_id)
            logger.warning(
                "%s: partition %s of an earlier definition holds rows whose blocks are gone, or that were made of "
                "others; retire it to have its insert range [%d, %d) made anew from what is there",
                self._view_set.name,
                old.partition_id,
                old.begin_insert_time,
                old.end_insert_time,
            )
        return True

    def _present(self, insert_range: InsertRange) -> list[Partition]:
        return self._lake.metadata.partitions(
            self._view_set.name, GLOBAL_INSTANCE, insert_begin=insert_range.begin, insert_end=insert_range.end
        )

    def _made(self, making: _Making, keep_going: KeepGoing) -> bool:
        """Make a partition under its lease; False when that failed. When another daemon is at it or was faster, or this
        one stops, there is nothing to do and nothing wrong."""
        try:
            if self._leases is None:
                self._make(making, keep_going)
            else:
                self._make_claimed(self._leases, making, keep_going)
        except LakeUnavailable:
            raise
        except ReductionStopped:
            pass
        except PartitionConflict as conflict:
            logger.debug("%s: another daemon was faster: %s", self._view_set.name, conflict)
        except Exception:
            begin, end = making.insert_range.begin, making.insert_range.end
            logger.exception("%s: insert range [%d, %d) failed", self._view_set.name, begin, end)
            return False
        return True

    def _make_claimed(self, leases: BuildLeases, making: _Making, keep_going: KeepGoing) -> None:
        claim = leases.take(f"{self._view_set.name}/{GLOBAL_INSTANCE}/{making.insert_range.begin}")
        if claim is None:
            return
        used_up = False
        try:
            # Looked at again under the lease: who held it before may have made just this.
            present = {each.partition_id for each in self._present(making.insert_range)}
            if present == {each.partition_id for each in making.replaced}:
                self._make(making, keep_going, claim)
                used_up = True
        finally:
            leases.give_back(claim, used_up=used_up)

    def _make(self, making: _Making, keep_going: KeepGoing, claim: LeaseClaim | None = None) -> Partition:
        """Raises `PartitionConflict`, `QueryError`, `ReductionStopped` or `LakeError`."""
        with self._lake.scratch.temporary() as folder:
            local = folder / "rows.parquet"
            row_file = RowFile(local, self._view_set)
            try:
                self._reductions.reduce(self._view_set, making.insert_range, making.parts, row_file.write, keep_going)
            finally:
                written = row_file.close()
            replaces = frozenset(partition.partition_id for partition in making.replaced)
            slot = PartitionSlot(self._view_set, GLOBAL_INSTANCE, making.insert_range, replaces, claim)
            finished = FinishedFile(local, written, making.origin.source_hash, making.origin.failed_blocks)
            return commit_partition(self._lake, slot, finished)


def idle_end(begin: int, first: int) -> int:
    """Where a partition without rows ends that begins at `begin`, when the next block comes in the minute `first`:
    as late as it may and still fit into an hour or a day. `begin` itself when both lie in one hour."""
    for unit in (HOUR, DAY):
        boundary = -(-begin // unit) * unit
        if begin < boundary <= first:
            return boundary
    if begin % HOUR:
        return begin
    midnight = floor_to(first, DAY)
    return midnight if begin % DAY == 0 and begin < midnight else max(begin, floor_to(first, HOUR))
