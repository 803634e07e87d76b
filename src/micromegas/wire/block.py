"""A slice of a stream: its ranges, its count and its compressed payload. It must never inflate the payload."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas import _core


@dataclass(frozen=True, slots=True)
class Block:
    """A block as sent.

    Times are nanoseconds since the epoch; ticks are relative to the process's `start_ticks` and may be negative (in
    blocks of OTLP they are nanoseconds since the epoch, too). `payload` is the canonical CBOR map `{dependencies,
    objects}` of two LZ4 frames, or of nothing and an OTLP message. `object_offset` counts the events
    of the stream before this block; `nb_objects` is the sender's word and may lie.
    """

    block_id: str
    stream_id: str
    process_id: str
    begin_time: int
    end_time: int
    begin_ticks: int
    end_ticks: int
    payload: bytes
    object_offset: int
    nb_objects: int

    @classmethod
    def decode(cls, body: bytes) -> Block:
        """Read the body of an `insert_block` request; raises `WireError` naming the fault."""
        return cls(*_core.parse_block(body))
