"""What a sender says, made by hand: values for the lake, and request bodies for the service."""

from __future__ import annotations

import uuid
from typing import Any

import cbor2
import lz4.frame

from micromegas.wire import Block, Process, Stream

START_TIME = 1_700_000_000_000_000_000
EMPTY_ARRAY = cbor2.dumps([])


def new_id() -> str:
    return str(uuid.uuid4())


def payload(size: int = 100, fill: bytes = b"x") -> bytes:
    """A payload of the envelope's shape with `size` bytes of content that is no telemetry."""
    return cbor2.dumps({"dependencies": b"", "objects": (fill * size)[:size]})


def process(process_id: str | None = None, **changes: Any) -> Process:
    fields: dict[str, Any] = {
        "process_id": process_id or new_id(),
        "exe": "program",
        "username": "somebody",
        "realname": "Some Body",
        "computer": "machine",
        "distro": "linux",
        "cpu_brand": "cpu",
        "tsc_frequency": 1_000_000_000,
        "start_time": START_TIME,
        "start_ticks": 1000,
        "parent_process_id": None,
        "properties": {"version": "1"},
    }
    return Process(**(fields | changes))


def stream(process_id: str, stream_id: str | None = None, **changes: Any) -> Stream:
    fields: dict[str, Any] = {
        "process_id": process_id,
        "stream_id": stream_id or new_id(),
        "dependencies_metadata": EMPTY_ARRAY,
        "objects_metadata": EMPTY_ARRAY,
        "tags": ["log"],
        "properties": {},
    }
    return Stream(**(fields | changes))


def block(of: Stream, block_id: str | None = None, **changes: Any) -> Block:
    fields: dict[str, Any] = {
        "block_id": block_id or new_id(),
        "stream_id": of.stream_id,
        "process_id": of.process_id,
        "begin_time": START_TIME,
        "end_time": START_TIME + 1000,
        "begin_ticks": 0,
        "end_ticks": 1000,
        "payload": payload(),
        "object_offset": 0,
        "nb_objects": 1,
    }
    return Block(**(fields | changes))


def process_body(process_id: str, **changes: Any) -> bytes:
    """Body of an `insert_process` request."""
    fields: dict[str, Any] = {
        "process_id": process_id,
        "exe": "program",
        "username": "somebody",
        "realname": "Some Body",
        "computer": "machine",
        "distro": "linux",
        "cpu_brand": "cpu",
        "tsc_frequency": 0,
        "start_time": "2026-01-02T03:04:05.123456789Z",
        "start_ticks": 1000,
        "parent_process_id": None,
        "properties": {"version": "1"},
    }
    return cbor2.dumps(fields | changes)


def stream_body(process_id: str, stream_id: str, **changes: Any) -> bytes:
    """Body of an `insert_stream` request."""
    fields: dict[str, Any] = {
        "process_id": process_id,
        "stream_id": stream_id,
        "dependencies_metadata": [],
        "objects_metadata": [],
        "tags": ["log"],
        "properties": {},
    }
    return cbor2.dumps(fields | changes)


def block_body(process_id: str, stream_id: str, block_id: str, size: int = 100, **changes: Any) -> bytes:
    """Body of an `insert_block` request whose frames are `size` bytes long in all, more or less."""
    frame = lz4.frame.compress(b"")
    fields: dict[str, Any] = {
        "block_id": block_id,
        "stream_id": stream_id,
        "process_id": process_id,
        "begin_time": "2026-01-02T03:04:05.000000001+00:00",
        "end_time": "2026-01-02T03:04:06.000000002+00:00",
        "begin_ticks": -5,
        "end_ticks": 5,
        "payload": {"dependencies": frame, "objects": b"\x5a" * size},
        "object_offset": 0,
        "nb_objects": 1,
    }
    return cbor2.dumps(fields | changes)
