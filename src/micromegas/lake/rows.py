"""Rows of the metadata database as plain values. They must never carry a connection or load anything lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A known process. Times in ns since the epoch, ticks of the process's own counter.

    `last_update_time` is the insert time of its newest visible block (its own insert time while it has none);
    `last_block_end_ticks` and `last_block_end_time` are the maxima over its visible blocks, None while it has none.
    `clock` is a `MeasuredClock` as JSON, None where `tsc_frequency` tells, or nothing does.
    """

    process_id: str
    exe: str
    username: str
    realname: str
    computer: str
    distro: str
    cpu_brand: str
    tsc_frequency: int
    start_time: int
    start_ticks: int
    insert_time: int
    parent_process_id: str | None
    properties: dict[str, str]
    last_update_time: int
    last_block_end_ticks: int | None
    last_block_end_time: int | None
    clock: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A known stream; `last_update_time` as in `ProcessRow`."""

    stream_id: str
    process_id: str
    dependencies_metadata: bytes
    objects_metadata: bytes
    tags: list[str]
    properties: dict[str, str]
    insert_time: int
    format: str
    last_update_time: int


@dataclass(frozen=True, slots=True)
class BlockIds:
    """Which block of which stream of which process."""

    block_id: str
    stream_id: str
    process_id: str

    @property
    def lone_object_key(self) -> str:
        """Where a lake with one object per block keeps the payload."""
        return f"blobs/{self.process_id}/{self.stream_id}/{self.block_id}"


@dataclass(frozen=True, slots=True)
class BlockHeader(BlockIds):
    """What another lake's row says about a block, but for the place of its payload."""

    begin_time: int
    begin_ticks: int
    end_time: int
    end_ticks: int
    nb_objects: int
    object_offset: int
    payload_size: int


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A visible block: its ranges, its insert time, where its payload is (object key, offset and size in bytes), and
    between which times (ns) its events are by the clock of its process; None when nothing tells."""

    block_id: str
    stream_id: str
    process_id: str
    begin_time: int
    begin_ticks: int
    end_time: int
    end_ticks: int
    nb_objects: int
    object_offset: int
    payload_size: int
    insert_time: int
    object_key: str
    payload_offset: int
    min_event_time: int | None = None
    max_event_time: int | None = None


@dataclass(frozen=True, slots=True)
class BlockError:
    """A block without rows: undecodable for `view_set`, or (`view_set` None) still waiting for its announcements."""

    block_id: str
    view_set: str | None
    error: str
    decoder_version: int | None
    recorded: int | None


@dataclass(frozen=True, slots=True)
class ClocklessBlock:
    """A visible block that gave no rows for `view_set` for want of a clock; `insert_time` in ns."""

    view_set: str
    block_id: str
    process_id: str
    stream_id: str
    insert_time: int


@dataclass(frozen=True, slots=True)
class ExpiringObject:
    """An object that is to be deleted once `expires` (ns) has passed and nobody adopted it."""

    path: str
    expires: int


@dataclass(frozen=True, slots=True)
class LeaseClaim:
    """A lease as its holder knows it. Whoever took it over since has another token."""

    name: str
    token: int


@dataclass(frozen=True, slots=True)
class PartitionBounds:
    """What of a partition tells whether a query needs it, as in `Partition`."""

    begin_insert_time: int
    end_insert_time: int
    min_event_time: int | None
    max_event_time: int | None
    schema_hash: bytes


@dataclass(frozen=True, slots=True)
class QueryDenial:
    """A rule that refuses queries: the SQL condition that they meet, and why. Times in ns since the epoch."""

    rule_id: str
    created_at: int
    created_by: str
    reason: str
    match_expr: str
    last_hit_at: int | None
