"""Packs: the payloads of one batch in as few objects as is useful.

A pack is the payloads back to back and nothing else; the rows say where each begins.
It must never split a payload, and never write to a key twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from micromegas.lake.metadata.commits import PlacedBlock
from micromegas.lake.objects import Objects
from micromegas.wire import Block

PACK_FOLDER = "packs"
ALONE_FROM_BYTES = 256 * 1024
"""From this size on a payload gets an object of its own: copying it into a pack costs more than a file."""

NS_PER_MS = 1_000_000


def pack_key(now: int) -> str:
    """A fresh key that sorts by time: `packs/<UTC date>/<UUID version 7>` of the moment `now` (ns)."""
    random = uuid.uuid4().int
    value = (now // NS_PER_MS) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    day = datetime.fromtimestamp(now / 1e9, UTC).date().isoformat()
    return f"{PACK_FOLDER}/{day}/{uuid.UUID(int=value)}"


def pack_key_time(key: str) -> int | None:
    """The moment (ns) that a pack's key was made at; None when the key is not of a pack."""
    try:
        value = uuid.UUID(key.rpartition("/")[2])
    except ValueError:
        return None
    return (value.int >> 80) * NS_PER_MS if value.version == 7 else None


def write_packs(objects: Objects, blocks: Sequence[Block], now: int) -> list[PlacedBlock]:
    """Write the payloads durably; returns where each block's is.

    Raises `LakeUnavailable`, leaving objects that no row points to.
    """
    small = [block for block in blocks if len(block.payload) < ALONE_FROM_BYTES]
    placed: list[PlacedBlock] = []
    if small:
        key = pack_key(now)
        offset = 0
        for block in small:
            placed.append(PlacedBlock(block, key, offset))
            offset += len(block.payload)
        objects.put(key, b"".join(block.payload for block in small))
    for block in blocks:
        if len(block.payload) >= ALONE_FROM_BYTES:
            key = pack_key(now)
            objects.put(key, block.payload)
            placed.append(PlacedBlock(block, key, 0))
    return placed
