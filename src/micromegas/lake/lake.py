"""A lake: the metadata database and the object store, kept in step.

An object is always written before the row that points to it, and deleted after it. It must never acknowledge what
is not durable in both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

from micromegas.config import LakeSettings
from micromegas.lake.errors import LakeCorrupt, LakeError, LakeUnavailable
from micromegas.lake.metadata import Metadata
from micromegas.lake.metadata.packs import PayloadPlace
from micromegas.lake.metadata.part import Clock, chunks
from micromegas.lake.objects import LocalObjects, Objects, open_objects
from micromegas.lake.pack import PACK_FOLDER, pack_key, pack_key_time, write_packs
from micromegas.lake.rows import BlockRow
from micromegas.lake.scratch import Scratch
from micromegas.wire import Batch, Block

PACK_DEADLINE_NS = 600 * 1_000_000_000
"""A batch whose pack is older than this is not committed any more: the sweep may be about to delete the pack."""

REPACKED_AT_ONCE = 64
REPACKED_BYTES = 8 * 1024 * 1024
MAX_MOVES = 2000
"""A new pack of what is left of others: no more packs, bytes (as a batch of ingestion) and blocks than these."""

FETCH_THREADS = 8
SWEEP = "packs"
logger = logging.getLogger(__name__)


class Lake:
    """An open lake. Synchronous and thread-safe; usable as a context manager."""

    def __init__(self, metadata: Metadata, objects: Objects, clock: Clock, retired_grace_ns: int) -> None:
        self.metadata = metadata
        self.objects = objects
        self.clock = clock
        self.scratch = Scratch()
        self._retired_grace_ns = retired_grace_ns
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="lake-fetch")

    @classmethod
    def open(cls, settings: LakeSettings, clock: Clock = time.time_ns) -> Lake:
        """Open the stores, creating what is missing and migrating what is old."""
        metadata = Metadata.open(settings, clock)
        try:
            objects = open_objects(settings)
        except BaseException:
            metadata.close()
            raise
        return cls(metadata, objects, clock, int(settings.retired_grace_s * 1e9))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def advised_lanes(self) -> int:
        """How many commits in flight at once serve this lake best."""
        return self.objects.advised_lanes

    def commit(self, batch: Batch) -> None:
        """Make a batch durable: payloads in packs, then all rows in one transaction.

        Repeated ids are a success that changes nothing. Raises `LakeUnavailable`: the batch may be committed again.
        """
        blocks: dict[str, Block] = {}
        for block in batch.blocks:
            blocks.setdefault(block.block_id, block)
        known = self.metadata.known_block_ids(list(blocks))
        written_at = self.clock()
        placed = write_packs(self.objects, [each for each in blocks.values() if each.block_id not in known], written_at)
        refuse_late = partial(self._refuse_late, written_at)
        outcome = self.metadata.insert_batch(batch.processes, batch.streams, placed, refuse_late)
        if outcome.unreferenced_keys:
            self._delete_quietly(sorted(outcome.unreferenced_keys))

    def read_payload(self, row: BlockRow) -> bytes:
        """The payload of a block; raises `LakeCorrupt` naming block and object when it is not there whole."""
        return self.read_payloads([row])[0]

    def read_payloads(self, rows: Sequence[BlockRow]) -> list[bytes]:
        """The payloads of blocks in the order given; neighbours in one object are fetched together.

        All of them are held in memory: the caller bounds the sum of `payload_size`.
        """
        by_object: dict[str, list[int]] = {}
        for position, row in enumerate(rows):
            by_object.setdefault(row.object_key, []).append(position)
        payloads: list[bytes] = [b""] * len(rows)

        def fetch(key: str) -> None:
            positions = by_object[key]
            try:
                parts = self.objects.get_ranges(
                    key,
                    [rows[position].payload_offset for position in positions],
                    [rows[position].payload_size for position in positions],
                )
            except LakeCorrupt as error:
                raise LakeCorrupt(f"payload of block {rows[positions[0]].block_id}: {error}") from error
            for position, part in zip(positions, parts, strict=True):
                payloads[position] = part

        if len(by_object) == 1 or self.objects.local_root is not None:
            for key in by_object:
                fetch(key)
        else:
            # Objects of a remote store are fetched side by side: each costs a round trip.
            for _ in self._fetchers.map(fetch, by_object):
                pass
        return payloads

    def check(self) -> None:
        """Return when database and object store answer; raises `LakeUnavailable`."""
        self.metadata.check()
        self.objects.check()

    def sweep_expired(self, limit: int = 1000) -> int:
        """Delete up to `limit` objects whose time has come; returns how many."""
        expired = [each.path for each in self.metadata.expired_objects(limit)]
        if expired:
            self.objects.delete(expired)
            self.metadata.forget_expiring(expired)
        return len(expired)

    def sweep_unreferenced(self, older_than_ns: int) -> int:
        """Delete packs older than this age that no row points to (writers killed between object and row).

        Goes on where the last sweep ended. Returns how many were deleted.
        """
        if older_than_ns < 2 * PACK_DEADLINE_NS:
            raise LakeError(f"packs younger than {2 * PACK_DEADLINE_NS // 1_000_000_000} s may still get their rows")
        end = self.clock() - older_than_ns
        begin = self.metadata.swept_until(SWEEP)
        deleted = 0
        for folder in self._pack_folders(begin, end):
            due = (
                each.path
                for each in self.objects.list(folder)
                if (made := pack_key_time(each.path)) is not None and begin <= made < end
            )
            for keys in chunks(due):
                unused = set(keys) - self.metadata.referenced_keys(keys)
                # What rows pointed to until lately is still being read.
                unused -= self.metadata.expiring_among(sorted(unused))
                self.objects.delete(sorted(unused))
                deleted += len(unused)
        if isinstance(self.objects, LocalObjects):
            self.objects.sweep_incoming(end / 1e9)
        self.metadata.set_swept_until(SWEEP, end)
        return deleted

    def delete_blocks_before(self, insert_time: int, limit: int = 5000) -> int:
        """One step of retention: delete up to `limit` blocks inserted before (ns), then what is left without blocks or
        waits in vain to become one.

        Returns how many rows were deleted; 0 means that nothing is left to do.
        """
        expires = self.clock() + self._retired_grace_ns
        deleted = self.metadata.delete_blocks_before(insert_time, limit, expires)
        if deleted < limit:
            deleted += self._delete_replicas_before(insert_time, limit)
        if deleted < limit:
            deleted += self.metadata.delete_idle_announcements(insert_time, limit)
        return deleted

    def delete_blocks_of(self, stream_ids: Sequence[str], insert_time: int, limit: int = 5000) -> int:
        """One step of retention for some streams: delete up to `limit` of their blocks inserted before (ns); returns
        how many, 0 when nothing is left to do."""
        return self.metadata.delete_blocks_of(stream_ids, insert_time, limit, self.clock() + self._retired_grace_ns)

    def repack(self, max_packs: int = REPACKED_AT_ONCE) -> int:
        """One step of saving room: move what is left of packs that are mostly dead into a new one; returns of how many
        packs, 0 when nothing is left to do.

        Whoever reads by rows that were listed before finds the old packs for the grace period. A crash leaves either an
        object without rows, for the sweep, or a move that is complete.
        """
        moves: list[tuple[PayloadPlace, int]] = []
        payloads: list[bytes] = []
        size = done = 0
        for key in self.metadata.mostly_dead_packs(max_packs):
            places = self.metadata.payload_places(key)
            if moves and (size + sum(each.payload_size for each in places) > REPACKED_BYTES or len(moves) > MAX_MOVES):
                break
            done += 1
            try:
                parts = self.objects.get_ranges(
                    key, [each.payload_offset for each in places], [each.payload_size for each in places]
                )
            except LakeCorrupt as error:
                # Queries tell of the blocks that it lacks.
                logger.warning("pack is left as it is: %s", error)
                self.metadata.forget_thinned_pack(key)
                continue
            for place, part in zip(places, parts, strict=True):
                moves.append((place, size))
                payloads.append(part)
                size += len(part)
        if not moves:
            return done
        written_at = self.clock()
        new_key = pack_key(written_at)
        self.objects.put(new_key, b"".join(payloads))
        expires = self.clock() + self._retired_grace_ns
        if not self.metadata.move_payloads(moves, new_key, expires, partial(self._refuse_late, written_at)):
            self._delete_quietly([new_key])
        return done

    def close(self) -> None:
        """Close all connections, and remove the temporary files."""
        self._fetchers.shutdown()
        self.scratch.close()
        self.metadata.close()

    def _delete_replicas_before(self, received: int, limit: int) -> int:
        """Give up halves of copied blocks that wait for the other half since before (ns); returns how many."""
        halves = self.metadata.replicas_before(received, limit)
        self.objects.delete([each.lone_object_key for each, has_payload in halves if has_payload])
        self.metadata.forget_replicas([each.block_id for each, _ in halves])
        return len(halves)

    def _pack_folders(self, begin: int, end: int) -> list[str]:
        """Folders that hold the packs made in `[begin, end)`; the whole store when nothing was swept before."""
        if begin == 0:
            return [PACK_FOLDER]
        day = datetime.fromtimestamp(begin / 1e9, UTC).date()
        last = datetime.fromtimestamp(end / 1e9, UTC).date()
        folders = []
        while day <= last:
            folders.append(f"{PACK_FOLDER}/{day.isoformat()}")
            day += timedelta(days=1)
        return folders

    def _refuse_late(self, written_at: int) -> None:
        if self.clock() - written_at > PACK_DEADLINE_NS:
            raise LakeUnavailable("it took too long from writing the objects to their rows")

    def _delete_quietly(self, keys: list[str]) -> None:
        """Delete objects that nobody needs; a failure only leaves work to the sweep."""
        try:
            self.objects.delete(keys)
        except LakeError as error:
            logger.warning("unused objects are left to the sweep: %s", error)
