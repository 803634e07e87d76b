"""Bodies and buffers that were changed at random: a function returns or raises `WireError`, nothing else, ever.

A panic of the native code would be a `PanicException`, which no `except Exception` hides and which fails the test.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cbor2
import lz4.frame
from e2e.recordings import SCENARIOS, recording
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas import _core

PARSERS = {
    "insert_process": _core.parse_process,
    "insert_stream": _core.parse_stream,
    "insert_block": _core.parse_block,
}
# Refused or not, a body may cost no more than a small multiple of its size; the caps are checked elsewhere.
SMALL_BODY = 20_000


@cache
def bodies() -> list[tuple[str, bytes]]:
    return [
        (request.path.rsplit("/", 1)[1], request.body)
        for name in SCENARIOS
        for request in recording(name).requests
        if len(request.body) < SMALL_BODY
    ]


@cache
def blocks() -> list[tuple[bytes, bytes, bytes, bytes]]:
    """(dependencies_metadata, objects_metadata, dependencies, objects), the buffers not compressed."""
    found = []
    for name in SCENARIOS:
        requests = [(request.path, request.body) for request in recording(name).requests]
        streams = {
            fields[1]: fields[2:4]
            for fields in (_core.parse_stream(body) for path, body in requests if path.endswith("stream"))
        }
        for path, body in requests:
            if path.endswith("block") and len(body) < SMALL_BODY:
                fields = _core.parse_block(body)
                payload = cbor2.loads(fields[7])
                buffers = (lz4.frame.decompress(payload[key]) for key in ("dependencies", "objects"))
                found.append((*streams[fields[1]], *buffers))
    return found


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with some bytes replaced, cut out or put in."""
    changed = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(changed)))
        action = draw(st.sampled_from(["flip", "number", "cut", "insert", "truncate"]))
        if action == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "number":
            width = draw(st.sampled_from([1, 2, 4, 8]))
            value = draw(st.sampled_from([0, 1, 0x7F, 0x80, 2 ** (8 * width - 1), 2 ** (8 * width) - 1]))
            changed[at : at + width] = (value % 2 ** (8 * width)).to_bytes(
                width, draw(st.sampled_from(["little", "big"]))
            )
        elif action == "cut":
            del changed[at : at + draw(st.integers(1, 16))]
        elif action == "insert":
            changed[at:at] = draw(st.binary(max_size=16))
        elif action == "truncate" and draw(st.booleans()):
            del changed[at:]
    return bytes(changed)


def read(function: Any, *arguments: bytes) -> Any:
    try:
        return function(*arguments)
    except _core.WireError as error:
        text = str(error)
        assert text[0].islower() or text[0] in "0123456789`"
        assert not text.endswith(".")
        return None


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_bodies(data: st.DataObject) -> None:
    endpoint, body = data.draw(st.sampled_from(bodies()))
    read(PARSERS[endpoint], data.draw(mutated(body)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(PARSERS)))
def test_any_bytes(body: bytes, endpoint: str) -> None:
    read(PARSERS[endpoint], body)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_buffers(data: st.DataObject) -> None:
    """Wrong before the compression, so that every record reader is reached."""
    dependencies_metadata, objects_metadata, dependencies, objects = data.draw(st.sampled_from(blocks()))
    target = data.draw(st.sampled_from(["dependencies", "objects", "both"]))
    if target != "objects":
        dependencies = data.draw(mutated(dependencies))
    if target != "dependencies":
        objects = data.draw(mutated(objects))
    payload = cbor2.dumps(
        {"dependencies": lz4.frame.compress(dependencies), "objects": lz4.frame.compress(objects, block_linked=False)}
    )
    read(_core.decode_events, dependencies_metadata, objects_metadata, payload)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_layouts(data: st.DataObject) -> None:
    dependencies_metadata, objects_metadata, dependencies, objects = data.draw(st.sampled_from(blocks()))
    payload = cbor2.dumps({"dependencies": lz4.frame.compress(dependencies), "objects": lz4.frame.compress(objects)})
    if data.draw(st.booleans()):
        dependencies_metadata = data.draw(mutated(dependencies_metadata))
    else:
        objects_metadata = data.draw(mutated(objects_metadata))
    read(_core.decode_events, dependencies_metadata, objects_metadata, payload)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_frames(data: st.DataObject) -> None:
    dependencies_metadata, objects_metadata, dependencies, objects = data.draw(st.sampled_from(blocks()))
    frame = lz4.frame.compress(
        objects,
        block_linked=data.draw(st.booleans()),
        content_checksum=False,
        store_size=data.draw(st.booleans()),
    )
    payload = cbor2.dumps({"dependencies": lz4.frame.compress(dependencies), "objects": data.draw(mutated(frame))})
    read(_core.decode_events, dependencies_metadata, objects_metadata, payload)
