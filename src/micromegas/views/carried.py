"""What a partition hands to the one after it: spans that go on, so that each is one row however blocks are parted.

A partition of such a view holds the spans that end in its blocks. It depends on the state that it began with, and on
ends without a begin in later partitions (`Later`): both are part of its source hash, so that whatever changes in front
or behind makes it stale.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from micromegas.lake import BlockRow

_LATER = struct.Struct("<Iq")
_DIGEST_BYTES = 16
# Of the bytes of a summary; one of another layout is not read, and its partition made again.
_LAYOUT = 2

TickOrder = tuple[int, int, str]
"""Begin, end (ticks) and id of a block: its place among the blocks of its stream by the clock of the process."""


def in_tick_order(block: BlockRow) -> TickOrder:
    """The place of a block."""
    return block.begin_ticks, block.end_ticks, block.block_id


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:_DIGEST_BYTES]


NO_STATE = _digest(b"none")
"""Digest of what is before the first block."""


@dataclass(frozen=True, slots=True)
class Later:
    """Ends without a begin that come in later partitions, in the tree that is open at the end of this one: how many,
    and the id of the first."""

    count: int = 0
    first_id: int = 0

    def to_bytes(self) -> bytes:
        return _LATER.pack(self.count, self.first_id)


NOTHING_LATER = Later()


@dataclass(frozen=True, slots=True)
class CarriedSummary:
    """What the neighbours of a partition need to know of it, without its blocks and its rows.

    The digest of the state that it hands on, which also tells where in insert time the partition ends, so that no two
    partitions of an instance have the same; ends without a begin in the tree that it began with, and whether that tree
    is open at its end too; how many events its blocks have, and by stream the last of its blocks.
    """

    digest: bytes
    enclosing: Later
    continues: bool
    objects: int
    latest: Mapping[str, TickOrder]

    def to_bytes(self) -> bytes:
        return json.dumps(
            {
                "layout": _LAYOUT,
                "digest": self.digest.hex(),
                "enclosing": [self.enclosing.count, self.enclosing.first_id],
                "continues": self.continues,
                "objects": self.objects,
                "latest": dict(self.latest),
            }
        ).encode()

    @staticmethod
    def read(value: bytes | None) -> CarriedSummary | None:
        """The summary as `to_bytes` gave it; None where there is none, or one that earlier releases made."""
        try:
            fields = json.loads(value or b"null")
        except ValueError:
            return None
        if not isinstance(fields, dict) or fields.get("layout") != _LAYOUT:
            return None
        return CarriedSummary(
            bytes.fromhex(fields["digest"]),
            Later(*fields["enclosing"]),
            fields["continues"],
            fields["objects"],
            {stream_id: (begin, end, block_id) for stream_id, (begin, end, block_id) in fields["latest"].items()},
        )

    def before(self, later: Later) -> Later:
        """What comes later for the partition before this one, when `later` comes after this one."""
        if not self.continues:
            return self.enclosing
        first_id = self.enclosing.first_id if self.enclosing.count else later.first_id
        return Later(self.enclosing.count + later.count, first_id)


@dataclass(frozen=True, slots=True)
class HandedOn:
    """What a partition hands on: the state, and its summary."""

    state: bytes
    summary: CarriedSummary


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What a builder says of the blocks that it has read."""

    state: bytes
    enclosing: Later = NOTHING_LATER
    continues: bool = False

    def handed_on(self, insert_end: int, objects: int, latest: Mapping[str, TickOrder]) -> HandedOn:
        """With what the builder doesn't know of the partition: where it ends in insert time, and its blocks."""
        digest = _digest(b"some" + insert_end.to_bytes(8, "little", signed=True) + self.state)
        return HandedOn(self.state, CarriedSummary(digest, self.enclosing, self.continues, objects, latest))


@dataclass(frozen=True, slots=True)
class Remembered:
    """What stays true of a partition although some of its blocks, or the state in front of it, are gone: the hash of
    all its blocks, and what it hands on. A build from what is left would know less."""

    blocks_hash: bytes
    handed_on: HandedOn


@dataclass(frozen=True, slots=True)
class CarriedIn:
    """What a partition is built with beside its blocks: the state that the one before handed on (None: it is the
    first) with its digest, and what comes later."""

    state: bytes | None = None
    digest: bytes = NO_STATE
    later: Later = NOTHING_LATER
    with_rows: bool = True
    """False: only what it hands on is wanted, at a fraction of the cost; rows are made when somebody asks for them."""
    remembered: Remembered | None = None

    @property
    def source_suffix(self) -> bytes:
        """Its part of the partition's source hash."""
        return self.digest + self.later.to_bytes()


def built_on(source_hash: bytes) -> bytes:
    """The digest of the state that a partition of this source hash began with."""
    return source_hash[-_LATER.size - _DIGEST_BYTES : -_LATER.size]


def without_later(source_hash: bytes) -> bytes:
    """The source hash but for what comes later."""
    return source_hash[: -_LATER.size]
