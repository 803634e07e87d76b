"""A sequence of events of one family and the layouts that its blocks are written in.

It must never interpret the layouts: they are kept as received (canonical CBOR) for the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from micromegas import _core

NATIVE_FORMATS: tuple[str, ...] = tuple(_core.STREAM_FORMATS)
"""Formats that senders of blocks may choose from."""

TRANSIT_FORMAT, COLUMNS_FORMAT = NATIVE_FORMATS

OTLP_FORMATS = {signal: f"otlp/v1/{signal}" for signal in ("logs", "metrics", "traces")}
"""Formats of the streams that OTLP requests become, by what their records are."""

READABLE_FORMATS: tuple[str, ...] = (*NATIVE_FORMATS, *OTLP_FORMATS.values())
"""Formats whose blocks can be decoded here; streams of any other are kept, and their blocks skipped."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The announcement of a stream.

    `dependencies_metadata` and `objects_metadata` are CBOR arrays of record layouts; `format` says how the blocks
    of the stream are encoded (`micromegas-transit` unless it was announced).
    """

    process_id: str
    stream_id: str
    dependencies_metadata: bytes
    objects_metadata: bytes
    tags: list[str]
    properties: dict[str, str]
    format: str = TRANSIT_FORMAT

    @classmethod
    def decode(cls, body: bytes) -> Stream:
        """Read the body of an `insert_stream` request; raises `WireError` naming the fault."""
        return cls(*_core.parse_stream(body))
