"""Recorded bodies are read as the senders' own parsers read them; odd and hostile ones get the verdict of the world."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import cbor2
import pytest
from e2e.recordings import SCENARIOS, VECTORS, Recording, recording

from micromegas import _core

HOSTILE_CASES = json.loads((VECTORS / "hostile" / "index.json").read_text(encoding="utf-8"))["cases"]


def as_expected(value: Any) -> Any:
    """A decoded value in the words of the expected files: bytes and odd floats are no JSON."""
    if isinstance(value, dict):
        return {key: as_expected(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_expected(each) for each in value]
    if isinstance(value, bytes):
        return {"$bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$f64": str(value)}
    return value


def nanoseconds(text: str) -> int:
    """An independent reading of the RFC 3339 times that the recordings have."""
    body, zone = (text[:-1], "+00:00") if text.endswith("Z") else (text[:-6], text[-6:])
    seconds, _, fraction = body.partition(".")
    return int(datetime.fromisoformat(seconds + zone).timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def bodies(scenario: Recording, endpoint: str) -> Iterator[bytes]:
    return (request.body for request in scenario.requests if request.path.endswith(endpoint))


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


def test_processes(scenario: Recording) -> None:
    for body in bodies(scenario, "insert_process"):
        fields = _core.parse_process(body)
        expected = scenario.processes[fields[0]]
        texts = ("process_id", "exe", "username", "realname", "computer", "distro", "cpu_brand")
        assert fields == (
            *(expected[key] for key in texts),
            expected["tsc_frequency"],
            nanoseconds(expected["start_time"]),
            expected["start_ticks"],
            expected["parent_process_id"] or None,
            expected["properties"],
        )


def test_streams(scenario: Recording) -> None:
    for body in bodies(scenario, "insert_stream"):
        process_id, stream_id, dependencies, objects, tags, properties, _ = _core.parse_stream(body)
        expected = scenario.streams[stream_id]
        assert process_id == expected["process_id"]
        assert cbor2.loads(dependencies) == expected["dependencies_metadata"]
        assert cbor2.loads(objects) == expected["objects_metadata"]
        assert (tags, properties) == (expected["tags"], expected["properties"])


def test_blocks(scenario: Recording) -> None:
    blocks = {block.header["block_id"]: block for block in scenario.blocks}
    layouts = {fields[1]: fields[2:4] for fields in map(_core.parse_stream, bodies(scenario, "insert_stream"))}
    for body in bodies(scenario, "insert_block"):
        block_id, stream_id, process_id, begin, end, begin_ticks, end_ticks, payload, offset, count = _core.parse_block(
            body
        )
        header = blocks[block_id].header
        assert (stream_id, process_id) == (header["stream_id"], header["process_id"])
        assert (begin, end) == (nanoseconds(header["begin_time"]), nanoseconds(header["end_time"]))
        assert (begin_ticks, end_ticks) == (header["begin_ticks"], header["end_ticks"])
        assert (offset, count) == (header["object_offset"], header["nb_objects"])
        events = _core.decode_events(*layouts[stream_id], payload)
        assert as_expected(events) == blocks[block_id].events


def test_payloads_are_stored_in_one_form() -> None:
    """Byte strings, whatever the sender wrote; older lakes hold the form with arrays of integers."""
    recorded = cbor2.loads((VECTORS / "hostile" / "ok_array_payload" / "block.cbor").read_bytes())
    payload = _core.parse_block(cbor2.dumps(recorded))[7]
    buffers = {name: bytes(integers) for name, integers in recorded["payload"].items()}
    assert payload == cbor2.dumps({name: buffers[name] for name in ("dependencies", "objects")})
    stream = _core.parse_stream((VECTORS / "hostile" / "ok_array_payload" / "stream.cbor").read_bytes())
    assert _core.decode_events(*stream[2:4], cbor2.dumps(recorded["payload"])) == _core.decode_events(
        *stream[2:4], payload
    )


@pytest.mark.parametrize("case", HOSTILE_CASES, ids=lambda case: case["case"])
def test_hostile_verdicts(case: dict[str, Any]) -> None:
    parsers = {"process": _core.parse_process, "stream": _core.parse_stream, "block": _core.parse_block}
    read: dict[str, tuple[Any, ...]] = {}
    verdicts = dict(case["upstream"])
    for kind, parse in parsers.items():
        verdict = verdicts.pop(f"insert_{kind}", None)
        if verdict is None:
            continue
        body = (VECTORS / "hostile" / case["case"] / f"{kind}.cbor").read_bytes()
        if verdict == "accepted":
            read[kind] = parse(body)
        else:
            with pytest.raises(_core.WireError, match=f"^insert_{kind}: "):
                parse(body)
    if "decode" not in verdicts:
        return
    arguments = (*read["stream"][2:4], read["block"][7])
    if verdicts["decode"] == "accepted":
        assert len(_core.decode_events(*arguments)) == verdicts["events_before_error"]
    else:
        with pytest.raises(_core.WireError) as caught:
            _core.decode_events(*arguments)
        assert len(caught.value.events) == verdicts["events_before_error"]
