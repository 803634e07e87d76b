"""Copies from another lake: its rows and its payloads, which come in calls of their own and in any order.

A block is committed, like one that was ingested, when both its row and its payload are here; until then nobody sees it.
Its insert time is that of this commit. Everything may be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from micromegas.lake.errors import LakeCorrupt
from micromegas.lake.lake import Lake
from micromegas.lake.rows import BlockHeader, BlockIds
from micromegas.wire import Batch, Block, Process, Stream

BYTES_AT_ONCE = 8 * 1024 * 1024
"""Payloads of one commit (one of them may be larger)."""

# An object of which no row is noted for so long is deleted: who wrote it was killed.
_PUT_LIFETIME = 6 * 3600 * 1_000_000_000

Item = TypeVar("Item")


class ReplicaMismatch(ValueError):
    """A payload is not the one that the block's row speaks of; the text names the block."""


class Replication:
    """The receiving end. Synchronous and thread-safe; every method returns when all it was given is durable.

    Raises `LakeUnavailable` when it shall be called again with the same.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def take_processes(self, processes: Sequence[Process]) -> None:
        self._lake.commit(Batch(processes=processes))

    def take_streams(self, streams: Sequence[Stream]) -> None:
        self._lake.commit(Batch(streams=streams))

    def take_blocks(self, headers: Sequence[BlockHeader]) -> None:
        """Rows of blocks. Those whose payloads came before are committed; raises `ReplicaMismatch`, `LakeCorrupt`."""
        self._commit_stored(self._lake.metadata.note_replica_headers(headers))

    def take_payloads(self, payloads: Sequence[tuple[BlockIds, bytes]]) -> None:
        """Payloads of blocks. Those whose rows came before are committed, the others are kept in objects of their own;
        raises `ReplicaMismatch` at the end, when that is done for all that it can be done for."""
        metadata = self._lake.metadata
        ids = [block.block_id for block, _ in payloads]
        known = metadata.known_block_ids(ids)
        expected = {header.block_id: header for header in metadata.replica_headers(ids)}
        awaited: dict[str, tuple[BlockHeader, bytes]] = {}
        early: dict[str, tuple[BlockIds, bytes]] = {}
        for block, payload in payloads:
            if block.block_id in known:
                continue
            if (header := expected.get(block.block_id)) is not None:
                awaited[block.block_id] = (header, payload)
            else:
                early[block.block_id] = (block, payload)
        mismatches = self._commit(awaited.values())
        metadata.forget_replicas(sorted(awaited.keys() - mismatches.keys()))
        early_blocks = [block for block, _ in early.values()]
        metadata.expect_replica_payloads(early_blocks, self._lake.clock() + _PUT_LIFETIME)
        for block, payload in early.values():
            self._lake.objects.put(block.lone_object_key, payload)
        self._commit_stored(metadata.note_replica_payloads(early_blocks))
        # somebody else may have completed the same block meanwhile
        known = metadata.known_block_ids(sorted(early))
        self._lake.objects.delete([early[block_id][0].lone_object_key for block_id in sorted(known)])
        for mismatch in mismatches.values():
            raise mismatch

    def _commit_stored(self, headers: Sequence[BlockHeader]) -> None:
        """Commit blocks whose payloads lie in objects of their own, and drop those."""
        mismatches: dict[str, ReplicaMismatch] = {}
        for part in _parts(headers, lambda header: header.payload_size):
            stored = [(header, payload) for header in part if (payload := self._stored_payload(header)) is not None]
            mismatches |= self._commit(stored)
            done = [header for header in part if header.block_id not in mismatches]
            self._lake.objects.delete([header.lone_object_key for header in done])
            self._lake.metadata.forget_replicas([header.block_id for header in done])
        for mismatch in mismatches.values():
            raise mismatch

    def _stored_payload(self, header: BlockHeader) -> bytes | None:
        """None when somebody else has committed the block and dropped the object meanwhile."""
        try:
            return self._lake.objects.get(header.lone_object_key)
        except LakeCorrupt as error:
            if self._lake.metadata.known_block_ids([header.block_id]):
                return None
            raise LakeCorrupt(f"{error}: send the payload again") from None

    def _commit(self, blocks: Iterable[tuple[BlockHeader, bytes]]) -> dict[str, ReplicaMismatch]:
        """Commit the blocks whose payloads are those that their rows speak of; returns what the others are, by id."""
        whole: list[Block] = []
        mismatches: dict[str, ReplicaMismatch] = {}
        for header, payload in blocks:
            if len(payload) == header.payload_size:
                whole.append(_block(header, payload))
            else:
                mismatches[header.block_id] = ReplicaMismatch(
                    f"the payload of block {header.block_id} has {len(payload)} bytes, its row speaks of "
                    f"{header.payload_size}"
                )
        for part in _parts(whole, lambda block: len(block.payload)):
            self._lake.commit(Batch(blocks=part))
        return mismatches


def _block(header: BlockHeader, payload: bytes) -> Block:
    return Block(
        header.block_id,
        header.stream_id,
        header.process_id,
        header.begin_time,
        header.end_time,
        header.begin_ticks,
        header.end_ticks,
        payload,
        header.object_offset,
        header.nb_objects,
    )


def _parts(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut into parts that a commit may take, in order."""
    part: list[Item] = []
    size = 0
    for item in items:
        if part and size + size_of(item) > BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(item)
        size += size_of(item)
    if part:
        yield part
