"""What a partition hands to the one after it: spans that go on, so that each is one row however blocks are parted.

A partition of such a view holds the spans that end in its blocks. It depends on the state that it began with, and on
ends without a begin in later partitions (`Later`): both are part of its source hash, so that whatever changes in front
or behind makes it stale.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

_LATER = struct.Struct("<Iq")
_SUMMARY = struct.Struct("<Iq?")
_DIGEST_BYTES = 16


def state_digest(state: bytes | None) -> bytes:
    """What tells two states apart; None is the state before the first block."""
    return hashlib.sha256(b"none" if state is None else b"some" + state).digest()[:_DIGEST_BYTES]


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
class CarriedIn:
    """What a partition is built with beside its blocks."""

    state: bytes | None
    later: Later = NOTHING_LATER

    @property
    def source_suffix(self) -> bytes:
        """Its part of the partition's source hash."""
        return state_digest(self.state) + self.later.to_bytes()


@dataclass(frozen=True, slots=True)
class CarriedSummary:
    """What the freshness of the neighbours of a partition depends on: the digest of the state that it hands on, ends
    without a begin in the tree that it began with, and whether that tree is open at its end too."""

    digest: bytes
    enclosing: Later
    continues: bool

    def to_bytes(self) -> bytes:
        return self.digest + _SUMMARY.pack(self.enclosing.count, self.enclosing.first_id, self.continues)

    @staticmethod
    def from_bytes(value: bytes) -> CarriedSummary:
        count, first_id, continues = _SUMMARY.unpack(value[_DIGEST_BYTES:])
        return CarriedSummary(value[:_DIGEST_BYTES], Later(count, first_id), continues)

    def before(self, later: Later) -> Later:
        """What comes later for the partition before this one, when `later` comes after this one."""
        if not self.continues:
            return self.enclosing
        first_id = self.enclosing.first_id if self.enclosing.count else later.first_id
        return Later(self.enclosing.count + later.count, first_id)


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What a partition hands on."""

    state: bytes
    enclosing: Later = NOTHING_LATER
    continues: bool = False

    def summary(self) -> CarriedSummary:
        return CarriedSummary(state_digest(self.state), self.enclosing, self.continues)
