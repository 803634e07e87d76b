"""Blocks of OTLP as the native builders take them, without a lake."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import cbor2

BLOCK_BEGIN = 1_600_000_000_000_000_001


@dataclass(frozen=True)
class Source:
    """A block as the builders take it."""

    format: str
    payload: bytes
    process_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    stream_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    block_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    insert_time: int = 7
    exe: str = "exe"
    username: str = "user"
    computer: str = "computer"
    process_properties: dict[str, str] = field(default_factory=lambda: {"a": "b"})
    start_time: int = 1
    start_ticks: int = 1
    frequency: int = 1_000_000_000
    begin_ticks: int = BLOCK_BEGIN
    end_ticks: int = BLOCK_BEGIN
    object_offset: int = 0
    dependencies_metadata: bytes = b"\x80"
    objects_metadata: bytes = b"\x80"


def source(signal: str, message: bytes) -> Source:
    return Source(f"otlp/v1/{signal}", cbor2.dumps({"dependencies": b"", "objects": message}))
