"""Blocks in columns: lossless for every layout, read by a second reader made from the description alone, and as safe as
the rest of the codec against bytes that somebody made up.
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from functools import cache
from typing import Any

import cbor2
import lz4.frame
import pytest
from codec import columns_reader
from codec.block_maker import (
    DEPENDENCIES,
    HANDLE,
    STRING_ID,
    BlockMaker,
    member,
    reference,
    text,
    udt,
)
from codec.test_mutations import mutated
from e2e.recordings import SCENARIOS, recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micromegas import _core

COLUMNS = "micromegas-columns/1"
Records = list[tuple[int, bytes]]


def cut(buffer: bytes, types: list[dict[str, Any]]) -> Records:
    """The records of a buffer, in the simplest way."""
    records, position = [], 0
    while position < len(buffer):
        kind, position = buffer[position], position + 1
        length = types[kind]["size"]
        if length == 0:
            (length,) = struct.unpack_from("<I", buffer, position)
            position += 4
        records.append((kind, buffer[position : position + length]))
        assert len(records[-1][1]) == length
        position += length
    return records


def joined(records: Records, types: list[dict[str, Any]]) -> bytes:
    return b"".join(
        bytes([kind]) + (b"" if types[kind]["size"] else struct.pack("<I", len(body))) + body for kind, body in records
    )


def unpacked(payload: bytes) -> tuple[bytes, bytes]:
    frames = cbor2.loads(payload)
    return lz4.frame.decompress(frames["dependencies"]), lz4.frame.decompress(frames["objects"])


def packed(dependencies: bytes, objects: bytes) -> bytes:
    return cbor2.dumps({"dependencies": lz4.frame.compress(dependencies), "objects": lz4.frame.compress(objects)})


def check(metadata: tuple[bytes, bytes], payload: bytes) -> tuple[bytes, bytes]:
    """Encodes, decodes by both readers, which must agree; gives the buffers that came back."""
    dependency_types, object_types = map(cbor2.loads, metadata)
    columns = _core.columns_payload(*metadata, payload)
    frames = cbor2.loads(columns)
    assert frames["dependencies"] == b""
    read = columns_reader.read_block(frames["objects"], dependency_types, object_types)
    back = _core.transit_payload(*metadata, columns)
    buffers = unpacked(back)
    assert buffers == (joined(read[0], dependency_types), joined(read[1], object_types))
    assert _core.columns_payload(*metadata, back) == columns
    return buffers


# ---- recordings


@cache
def recorded_blocks(scenario: str) -> list[tuple[tuple[bytes, bytes], bytes]]:
    requests = [(request.path, request.body) for request in recording(scenario).requests]
    streams = {
        fields[1]: fields for fields in (_core.parse_stream(body) for path, body in requests if "stream" in path)
    }
    blocks = [_core.parse_block(body) for path, body in requests if path.endswith("block")]
    return [((streams[block[1]][2], streams[block[1]][3]), block[7]) for block in blocks if block[1] in streams]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_recordings(scenario: str) -> None:
    blocks = recorded_blocks(scenario)
    assert blocks
    large = [block for block in blocks if len(block[1]) >= 40_000]
    for metadata, payload in [block for block in blocks if len(block[1]) < 40_000] + large[:1]:
        columns = _core.columns_payload(*metadata, payload)
        expected = _core.decode_events(*metadata, payload)
        assert repr(_core.decode_events(*metadata, columns, format=COLUMNS)) == repr(expected)
        if len(payload) < 20_000:  # the second reader is slow
            back = check(metadata, payload)
            assert [len(each) for each in back] == [len(each) for each in unpacked(payload)]
    for metadata, payload in large:
        columns = _core.columns_payload(*metadata, payload)
        back = _core.transit_payload(*metadata, columns)
        assert [len(each) for each in unpacked(back)] == [len(each) for each in unpacked(payload)]
        assert _core.columns_payload(*metadata, back) == columns


# ---- layouts that nobody thought of

WIDTHS = {"u8": 1, "uint8": 1, "u32": 4, "uint32": 4, "u64": 8, "uint64": 8, "i64": 8, "int64": 8, "f64": 8}
INNER = udt("Inner", 12, member("first", "u32", 0, 4), member("time", "i64", 4, 8))


@st.composite
def fixed_types(draw: st.DrawFn, name: str, own: str | None) -> dict[str, Any]:
    """Members with gaps between them, sometimes over one another, in place, as handles."""
    members, end = [], 0
    if own is not None:
        members.append(member(own, "u64", 0, 8))
        end = 8
    for index in range(draw(st.integers(0 if own else 1, 5))):
        offset = max(0, end + draw(st.sampled_from([0, 0, 0, 1, 3, -2 if own is None else 0])))
        kind = draw(st.sampled_from([*WIDTHS, "reference", "Inner", "StringId"]))
        member_name = draw(st.sampled_from([f"member{index}", "time", "same"]))
        size = {"reference": draw(st.sampled_from([8, 16])), "Inner": 12, "StringId": 16}.get(kind) or WIDTHS[kind]
        members.append(member(member_name, kind, offset, size, is_reference=kind == "reference"))
        end = max(end, offset + size)
    return udt(name, max(1, end + draw(st.sampled_from([0, 0, 1]))), *members)


def known_bytes(types: list[dict[str, Any]], each: dict[str, Any]) -> set[int]:
    """The bytes of a record that a reader reads."""
    return {
        place
        for offset, kind, _ in columns_reader.leaves(types, each, 0)
        for place in range(offset, offset + columns_reader.PRIMITIVES.get(kind, 8))
    }


INTERESTING = st.one_of(
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
    st.sampled_from([2**64 - 1, 2**63, 2**63 - 1, 2**32, 0x7FF8000000000001, 0xFFF0000000000000, 1 << 63]),
    st.floats(0, 1000).map(lambda value: struct.unpack("<Q", struct.pack("<d", round(value, 2)))[0]),
)


@st.composite
def bodies_of(draw: st.DrawFn, types: list[dict[str, Any]], each: dict[str, Any]) -> bytes:
    if each["size"] == 0:
        texts = st.sampled_from([text("a"), text("b" * 40), text("é", 1), text(b"\xff\xfe", 0), b"\x02\x05\0\0\0ab"])
        numbers = st.binary(min_size=0, max_size=16)
        return draw(numbers) + draw(numbers) + draw(st.just(b"") | texts) + draw(st.binary(max_size=9))
    record = bytearray(each["size"])
    known = known_bytes(types, each)
    for offset, _, _ in columns_reader.leaves(types, each, 0):
        raw = draw(INTERESTING).to_bytes(8, "little")
        for place in range(offset, min(offset + 8, each["size"])):
            if place in known:
                record[place] = raw[place - offset]
    return bytes(record)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Records, Records]:
    objects = [draw(fixed_types(f"Event{index}", None)) for index in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        begin = draw(fixed_types("BeginThing", None))
        objects += [begin, {**begin, "name": "EndThing"}]
    names = ["LogStringEventV2", "TaggedLogString", "LogStringEvent", "LogStringInteropEventV3", "ImageEvent"]
    objects += [udt(name, 0) for name in [*names, "LogStringInteropEventV2", "TaggedLogInteropEvent", "Unheard"]]
    objects += [INNER, HANDLE, STRING_ID]
    dependencies = [*DEPENDENCIES, draw(fixed_types("Other", "id")), INNER, STRING_ID]
    pools = []
    for types, last in ((dependencies, 7), (objects, len(objects) - 3)):
        kinds = [kind for kind in range(last) if types[kind]["name"] != "Property"]
        one = st.sampled_from(kinds).flatmap(
            lambda kind, types=types: st.tuples(st.just(kind), bodies_of(types, types[kind]))  # type: ignore[misc]
        )
        pool = draw(st.lists(one, min_size=1, max_size=6))
        pools.append(draw(st.lists(st.sampled_from(pool), max_size=40)))
    return dependencies, objects, pools[0], pools[1]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(blocks())
def test_any_layout(block: tuple[list[dict[str, Any]], list[dict[str, Any]], Records, Records]) -> None:
    dependencies, objects, first, second = block
    metadata = cbor2.dumps(dependencies), cbor2.dumps(objects)
    originals = joined(first, dependencies), joined(second, objects)
    back = check(metadata, packed(*originals))
    # a handle's bytes beside its id are nobody's
    handles = {"LogStringInteropEventV3", "LogStringInteropEventV2", "TaggedLogInteropEvent"}
    for new, old, types in zip(back, originals, (dependencies, objects), strict=True):
        for (kind, body), (old_kind, old_body) in zip(cut(new, types), cut(old, types), strict=True):
            assert kind == old_kind
            assert len(body) == len(old_body)
            if types[kind]["name"] not in handles:
                assert body == old_body


METRICS = (
    udt("FloatMetricEvent", 24, reference("desc", 0), member("value", "f64", 8, 8), member("time", "i64", 16, 8)),
)
ODD_FLOATS = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    5e-324,
    1.7976931348623157e308,
    0.1 + 0.2,
    1e22,
    1e23,
    2.0**51,
    -(2.0**53),
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=True),
            st.sampled_from(ODD_FLOATS),
            st.decimals(-(10**9), 10**9, places=3).map(float),
            st.integers(-(2**60), 2**60).map(float),
        ),
        max_size=80,
    ),
    st.integers(1, 4),
)
def test_floats(values: list[float], sites: int) -> None:
    maker = BlockMaker(METRICS)
    ids = [maker.metric_description(f"m{index}", "", "t") for index in range(sites)]
    for index, value in enumerate(values):
        maker.event("FloatMetricEvent", struct.pack("<Qdq", ids[index % sites], value, index))
    maker.event("FloatMetricEvent", struct.pack("<QQq", ids[0], 0x7FF8DEADBEEF0001, 0))  # a NaN with a payload
    assert check(maker.metadata(), maker.payload()) == (bytes(maker.dependency_bytes), bytes(maker.event_bytes))


# ---- templates and values

LOGS = (
    udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "i64", 8, 8)),
    udt("LogStringEventV2", 0),
    udt("TaggedLogString", 0),
    udt("LogTemplateEvent", 0),
)


def value(each: object) -> bytes:
    if each is None:
        return b"\0"
    if isinstance(each, bool):
        return b"\x02" if each else b"\x01"
    if isinstance(each, int):
        return struct.pack("<Bq", 3, each)
    if isinstance(each, float):
        return struct.pack("<Bd", 4, each)
    raw = str(each).encode()
    return struct.pack("<BI", 5, len(raw)) + raw


VALUES = {
    "%s": st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8")),
    "%d": st.integers(-(2**63), 2**63 - 1) | st.booleans(),
    "%-8x": st.integers(-(2**63), 2**63 - 1),
    "%.3f": st.floats() | st.integers(-1000, 1000),
    "%g": st.floats(),
    "%%": st.nothing(),
}


@st.composite
def log_calls(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, tuple[object, ...], bool]]]:
    pieces = st.lists(st.sampled_from([*VALUES, "a", " = "]), max_size=5).map(tuple)
    sites = draw(st.lists(pieces, min_size=1, max_size=3))
    calls = []
    for _ in range(draw(st.integers(0, 30))):
        site = draw(st.integers(0, len(sites) - 1))
        values = tuple(draw(VALUES[piece]) for piece in sites[site] if piece in VALUES and piece != "%%")
        calls.append((site, values, draw(st.booleans())))
    return ["".join(site) for site in sites], calls


@settings(max_examples=150, deadline=None)
@given(log_calls())
def test_templates(drawn: tuple[list[str], list[tuple[int, tuple[object, ...], bool]]]) -> None:
    templates, calls = drawn
    maker = BlockMaker(LOGS)
    sites = [maker.log_description(template, "t", 4) for template in templates]
    properties = maker.properties(("k", "v"))
    for time, (site, values, tagged) in enumerate(calls):
        body = struct.pack("<QQqB", sites[site], properties if tagged else 0, time, len(values))
        maker.event("LogTemplateEvent", body + b"".join(map(value, values)))
    columns = _core.columns_payload(*maker.arguments())
    read = columns_reader.read_block(cbor2.loads(columns)["objects"], maker.dependencies, maker.objects)
    assert joined(read[1], list(LOGS)) == bytes(maker.event_bytes)
    events = _core.decode_events(*maker.metadata(), columns, format=COLUMNS)
    assert [event["msg"] for event in events] == [
        templates[site] % values if values else templates[site] for site, values, _ in calls
    ]
    assert [event["$type"] for event in events] == [
        "TaggedLogString" if tagged else "LogStringEventV2" for _, _, tagged in calls
    ]
    assert [event["time"] for event in events] == list(range(len(calls)))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (struct.pack("<QQqB", 4, 0, 0, 2) + value(1) + value(2), "2 values for a template of 1 conversions"),
        (struct.pack("<QQqB", 99, 0, 0, 1) + value(1), "no dependency has the id 99"),
        (struct.pack("<QQqB", 1, 0, 0, 1) + value(1), "dependency 0 is no object"),
        (struct.pack("<QQqB", 4, 0, 0, 1) + b"\x05\x01\0\0\0\xff", "text of a value"),
        (struct.pack("<QQqB", 4, 0, 0, 1) + b"\x09", "value of unknown type 9"),
        (struct.pack("<QQqB", 4, 0, 0, 0) + b"more", "4 bytes behind the values"),
    ],
)
def test_templates_that_do_not_fit(body: bytes, problem: str) -> None:
    maker = BlockMaker(LOGS)
    assert maker.log_description("a %d", "t", 4) == 4
    maker.event("LogTemplateEvent", body)
    columns = _core.columns_payload(*maker.arguments())
    with pytest.raises(_core.WireError, match=problem):
        _core.decode_events(*maker.metadata(), columns, format=COLUMNS)


# ---- sizes


def test_small_blocks_do_not_grow() -> None:
    objects = (*LOGS[:3], *METRICS)
    for count in (0, 1, 3, 10):
        maker = BlockMaker(objects)
        site = maker.log_description("the %s is %s", "some.module", 4)
        for index in range(count):
            body = struct.pack("<Qq", site, 10**15 + index * 7919) + text(f"the thing {index} is {index * 31}")
            maker.event("LogStringEventV2", body)
        transit = maker.payload()
        columns = _core.columns_payload(*maker.metadata(), transit)
        assert len(columns) <= len(transit) + 8, count


# ---- made-up bytes


def in_columns(body: bytes, length: int | None = None, stored: int = 0) -> bytes:
    """A payload of one segment that is not compressed."""

    def varint(number: int) -> bytes:
        made = b""
        while number >= 0x80:
            made, number = made + bytes([number & 0x7F | 0x80]), number >> 7
        return made + bytes([number])

    head = b"\xc1" + varint(len(body) if length is None else length) + varint(stored)
    return cbor2.dumps({"dependencies": b"", "objects": head + body})


@cache
def encoded_bodies() -> list[tuple[bytes, bytes, bytes]]:
    found = []
    for scenario in SCENARIOS:
        for metadata, payload in recorded_blocks(scenario):
            if len(payload) < 8_000:
                columns = cbor2.loads(_core.columns_payload(*metadata, payload))["objects"]
                found.append((*metadata, columns_reader.body_of(columns).bytes))
    maker = BlockMaker(LOGS)
    sites = [maker.log_description(template, "t", 4) for template in ("a %d %s", "b %s %.3f", "c %s")]
    for time in range(60):
        values = [(time, f"t{time % 7}"), (None, time / 8), (f"u{time}",)][time % 3]
        head = struct.pack("<QQqB", sites[time % 3], 0, 1000 + 3 * time, len(values))
        maker.event("LogTemplateEvent", head + b"".join(map(value, values)))
    columns = cbor2.loads(_core.columns_payload(*maker.arguments()))["objects"]
    found += [(*maker.metadata(), columns_reader.body_of(columns).bytes)] * 8
    return found


def read(*arguments: bytes, **options: Any) -> None:
    with suppress(_core.WireError):
        _core.decode_events(*arguments, format=COLUMNS, **options)


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_mutated_bodies(data: st.DataObject) -> None:
    """Wrong before the compression, so that every reader is reached."""
    dependencies, objects, body = data.draw(st.sampled_from(encoded_bodies()))
    changed = in_columns(data.draw(mutated(body)))
    read(dependencies, objects, changed, max_bytes=data.draw(st.sampled_from([0, 100, 10_000, 4 << 20])))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_segments(data: st.DataObject) -> None:
    scenario = data.draw(st.sampled_from(SCENARIOS))
    metadata, payload = data.draw(
        st.sampled_from([each for each in recorded_blocks(scenario) if len(each[1]) < 50_000])
    )
    columns = cbor2.loads(_core.columns_payload(*metadata, payload))["objects"]
    read(*metadata, cbor2.dumps({"dependencies": b"", "objects": data.draw(mutated(columns))}))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_body(body: bytes) -> None:
    read(*BlockMaker(LOGS).metadata(), in_columns(body), max_bytes=1 << 20)


MANY = b"\xff\xff\xff\x7f"  # 2^28 - 1
SOME = b"\x80\x80\x80\x04"  # 2^23
STRINGS = b"\x20\x02"  # all records are of type 1, LogStringEventV2
NO_DEPENDENCIES = b"\0"
BOMBS = {
    "a segment of 2^60 bytes": (in_columns(b"", 2**60), "bytes in a segment"),
    "a segment of 2^25 bytes in 12": (in_columns(b"\x28\xb5\x2f\xfd" + bytes(8), 2**25, 12), "a segment of"),
    "records out of nothing": (in_columns(NO_DEPENDENCIES + MANY + b"\0"), "at most 67108864 are possible"),
    "events out of nothing": (in_columns(NO_DEPENDENCIES + SOME + b"\0"), "records of more than"),
    "texts out of nothing": (
        # one id for all, no steps of time, codecs of zero, then as many indexes as texts in the dictionary
        in_columns(NO_DEPENDENCIES + SOME + STRINGS + b"\1" + b"\0\1\0" + b"\0" + b"\0" + b"\1\0" + SOME + b"\0"),
        "texts in a dictionary, at most 1048576",
    ),
    "ids out of nothing": (
        in_columns(NO_DEPENDENCIES + SOME + STRINGS + b"\1" + b"\0" + SOME + b"\x01"),
        "a column of 8388608 bytes",
    ),
    "as many events as may be": (
        # all without a text, with nothing behind it
        in_columns(
            NO_DEPENDENCIES + b"\x80\x80\x80\x01" + STRINGS + b"\1" + b"\0\1\0" + b"\0" + b"\0" + b"\0\0" + b"\0\0"
        ),
        "no dependency has the id 0",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    payload, problem = BOMBS[name]
    with pytest.raises(_core.WireError, match=problem):
        _core.decode_events(*BlockMaker(LOGS).metadata(), payload, format=COLUMNS, max_bytes=64 << 20)


def test_caps() -> None:
    maker = BlockMaker(LOGS)
    site = maker.log_description("%1000d" * 32, "t", 4)
    for _ in range(300):
        maker.event("LogTemplateEvent", struct.pack("<QQqB", site, 0, 0, 32) + value(1) * 32)
    columns = _core.columns_payload(*maker.arguments())
    assert len(columns) < 700
    assert len(_core.decode_events(*maker.metadata(), columns, format=COLUMNS)) == 300
    with pytest.raises(_core.WireError, match="records of more than 1000000 bytes"):
        _core.decode_events(*maker.metadata(), columns, format=COLUMNS, max_bytes=1_000_000)
    zeros = b"\0" * (1 << 20)
    maker = BlockMaker((udt("Unheard", 0),))
    maker.event("Unheard", zeros)
    columns = _core.columns_payload(*maker.arguments())
    with pytest.raises(_core.WireError, match="1048576 bytes in a segment"):
        _core.decode_events(*maker.metadata(), columns, format=COLUMNS, max_bytes=1000)


def test_the_wrong_format() -> None:
    maker = BlockMaker(LOGS)
    maker.event("LogStaticStrEvent", struct.pack("<Qq", maker.log_description("a", "t", 4), 0))
    transit = maker.payload()
    columns = _core.columns_payload(*maker.metadata(), transit)
    with pytest.raises(_core.WireError, match="bytes of dependencies beside a block in columns"):
        _core.decode_events(*maker.metadata(), transit, format=COLUMNS)
    with pytest.raises(_core.WireError, match="0 bytes are no lz4 frame"):
        _core.decode_events(*maker.metadata(), columns)
    frame = cbor2.dumps({"dependencies": b"", "objects": lz4.frame.compress(b"")})
    with pytest.raises(_core.WireError, match="0x04 is not how a block in columns begins"):
        _core.decode_events(*maker.metadata(), frame, format=COLUMNS)
    with pytest.raises(_core.WireError, match="format `micromegas-columns/2` cannot be read"):
        _core.decode_events(*maker.metadata(), columns, format="micromegas-columns/2")
