"""What no recording shows: legacy events, odd texts, layouts and references that nobody sends."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import lz4.frame
import pytest
from codec.block_maker import (
    ANSI,
    DEPENDENCIES,
    HANDLE,
    STRING_ID,
    UTF8,
    WIDE,
    BlockMaker,
    member,
    reference,
    text,
    udt,
)

from micromegas import _core

STATIC_EVENT = udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "i64", 8, 8))
TEXT_EVENT = udt("LogStringEventV2", 0)


def decode(maker: BlockMaker, **limits: int) -> list[dict[str, Any]]:
    return _core.decode_events(*maker.arguments(), **limits)


def text_block(raw: bytes) -> BlockMaker:
    maker = BlockMaker((TEXT_EVENT,))
    maker.event("LogStringEventV2", struct.pack("<Qq", maker.log_description("f", "t", 4), 5) + raw)
    return maker


def test_legacy_log_events() -> None:
    maker = BlockMaker((udt("LogStringEvent", 0), udt("LogStringInteropEventV2", 0), STRING_ID))
    description = maker.log_description("format", "a::target", 3)
    maker.event("LogStringEvent", struct.pack("<Qq", description, -7) + b"to the end \xff")
    target = maker.text("interop")
    maker.event("LogStringInteropEventV2", struct.pack("<qIQII", 8, 5, target, 7, 0xDEADBEEF) + b"")
    first, second = decode(maker)
    assert (first["msg"], first["time"], first["desc"]["target"]) == ("to the end \ufffd", -7, "a::target")
    assert second == {
        "$type": "LogStringInteropEventV2",
        "level": 5,
        "target": "interop",
        "msg": "",
        "time": 8,
    }


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (text("é\0☃"), "é\0☃"),
        (text("é☃😀", WIDE), "é☃😀"),
        (text(b"\x3d\xd8a\0", WIDE), "\ufffda"),
        (text(b"caf\xe9", ANSI), "caf\ufffd"),
        (text(b"\xf0\x9f", UTF8), "\ufffd"),
        (text("") + b"left over", ""),
    ],
)
def test_texts(raw: bytes, expected: str) -> None:
    assert decode(text_block(raw))[0]["msg"] == expected


@pytest.mark.parametrize("raw", [b"", b"\x02", text(b"x", 3), text(b"x", 9), b"\x02\x05\0\0\0four", text(b"odd", WIDE)])
def test_bad_texts(raw: bytes) -> None:
    with pytest.raises(_core.WireError, match=r"event 0 \(LogStringEventV2\)"):
        decode(text_block(raw))


def test_unknown_types_are_passed_over() -> None:
    maker = BlockMaker((udt("Future", 0, member("x", "nonsense", 3, 2**60)), TEXT_EVENT, udt("Small", 1)))
    maker.event("Future", b"whatever")
    maker.event("Small", b"\x07")
    maker.event("LogStringEventV2", struct.pack("<Qq", maker.log_description("f", "t", 4), 5) + text("after"))
    events = decode(maker)
    assert events[:2] == [{"$type": "Future"}, {"$type": "Small"}]
    assert events[2]["msg"] == "after"


def test_a_handle_is_its_id() -> None:
    maker = BlockMaker(
        (udt("Named", 32, member("name", "StaticStringRef", 9, 16), member("n", "uint8", 8, 1)), HANDLE),
    )
    name = maker.text("the name")
    maker.event("Named", b"\xaa" * 8 + b"\x07" + struct.pack("<Q", name) + b"\xbb" * 15)
    assert decode(maker) == [{"$type": "Named", "name": "the name", "n": 7}]


def test_an_object_in_place() -> None:
    inner = udt("Inner", 12, member("a", "u32", 0, 4), member("b", "i64", 4, 8))
    maker = BlockMaker((udt("Outer", 20, member("inner", "Inner", 8, 12), member("c", "f64", 0, 8)), inner))
    maker.event("Outer", struct.pack("<dIq", 0.5, 7, -1))
    assert decode(maker) == [{"$type": "Outer", "inner": {"$type": "Inner", "a": 7, "b": -1}, "c": 0.5}]


def nested(depth: int, width: int) -> tuple[dict[str, Any], ...]:
    """Types that hold `width` times the next one, `depth` deep."""
    levels = [
        udt(f"Level{level}", 8, *(member(f"m{index}", f"Level{level + 1}", 0, 8) for index in range(width)))
        for level in range(depth)
    ]
    return (*levels, udt(f"Level{depth}", 8, member("value", "u64", 0, 8)))


@pytest.mark.parametrize(
    "types",
    [
        pytest.param((udt("Self", 8, member("me", "Self", 0, 8)),), id="a type that holds itself"),
        pytest.param(
            (udt("A", 8, member("b", "B", 0, 8)), udt("B", 8, member("a", "A", 0, 8))), id="types that hold each other"
        ),
        pytest.param(nested(20, 1), id="too deep"),
        pytest.param(nested(7, 40), id="unfolds to 40^7 members"),
        pytest.param((udt("Wide", 8, *(member(f"m{i}", "u64", 0, 8) for i in range(5000))),), id="5000 members"),
        pytest.param((udt("Past", 8, member("m", "u64", 1, 8)),), id="past the record"),
        pytest.param((udt("Wraps", 8, member("m", "u64", 2**64 - 4, 8)),), id="offset that wraps around"),
        pytest.param((udt("Narrow", 8, member("m", "u64", 0, 4)),), id="u64 of four bytes"),
        pytest.param((udt("Short", 8, member("m", "x", 0, 4, is_reference=True)),), id="reference of four bytes"),
        pytest.param((udt("Stranger", 8, member("m", "i32", 0, 4)),), id="unknown primitive"),
        pytest.param(
            (udt("Handled", 8, member("m", "H", 0, 8)), udt("H", 8, is_reference=True)), id="handle without an id"
        ),
    ],
)
def test_bad_layouts_harm_only_their_own_events(types: tuple[dict[str, Any], ...]) -> None:
    maker = BlockMaker((*types, TEXT_EVENT))
    description = maker.log_description("f", "t", 4)
    maker.event("LogStringEventV2", struct.pack("<Qq", description, 5) + text("before"))
    assert len(decode(maker)) == 1
    maker.event(types[0]["name"], b"\0" * 8)
    with pytest.raises(_core.WireError, match=rf"event 1 \({types[0]['name']}\)") as caught:
        decode(maker)
    assert [event["msg"] for event in caught.value.events] == ["before"]


def test_many_members_over_the_same_bytes() -> None:
    maker = BlockMaker((udt("Wide", 8, *(member(f"m{i}", "u64", 0, 8) for i in range(3000))),))
    for value in range(5):
        maker.event("Wide", struct.pack("<Q", value))
    assert [event["m2999"] for event in decode(maker)] == list(range(5))
    with pytest.raises(_core.WireError, match="too many values") as caught:
        decode(maker, max_values=7000)
    assert len(caught.value.events) == 2


def dependencies_only(maker: BlockMaker) -> str:
    with pytest.raises(_core.WireError, match="dependency") as caught:
        decode(maker)
    return str(caught.value)


def test_a_dependency_comes_before_its_users() -> None:
    maker = BlockMaker((STATIC_EVENT,))
    maker.dependency("LogMetadataRecord", struct.pack("<3QI", 2, 2, 2, 4))
    maker.text("too late")
    assert "used before it is written" in dependencies_only(maker)


def test_an_id_is_given_once() -> None:
    maker = BlockMaker((STATIC_EVENT,))
    maker.text("one")
    maker.last_id = 0
    maker.text("two")
    assert "id 1 twice" in dependencies_only(maker)


@pytest.mark.parametrize("count", [2, 2**31, 2**32 - 1])
def test_a_property_set_stays_in_its_record(count: int) -> None:
    maker = BlockMaker((STATIC_EVENT,))
    first = maker.text("a")
    maker.dependency("PropertySetDependency", struct.pack("<IQQ", count, first, first))
    for _ in range(10):
        maker.text("what follows must not be read as properties")
    assert f"{count} properties in 16 bytes" in dependencies_only(maker)


def test_properties_are_texts() -> None:
    maker = BlockMaker((STATIC_EVENT,))
    empty = maker.properties()
    maker.dependency("PropertySetDependency", struct.pack("<IQQ", 1, empty, empty))
    assert "is no text" in dependencies_only(maker)


def test_a_long_chain_of_objects_is_refused() -> None:
    """Objects that refer to one another: nothing may recurse as deep as the sender wishes."""
    node = udt("Node", 16, member("id", "u64", 0, 8), reference("next", 8))
    maker = BlockMaker((STATIC_EVENT,), (*DEPENDENCIES, node))
    maker.text("end")
    for _ in range(100_000):
        maker.dependency("Node", struct.pack("<Q", maker.last_id))
    assert "deeper than" in dependencies_only(maker)


@pytest.mark.parametrize("missing", ["Property", "StaticStringRef"])
def test_missing_helpers(missing: str) -> None:
    kept = tuple(each for each in DEPENDENCIES if each["name"] != missing)
    maker = BlockMaker((udt("TaggedLogInteropEvent", 0),), kept)
    if missing == "Property":
        maker.properties(("a", "b"))
        assert "type Property is missing" in dependencies_only(maker)
    else:
        maker.event("TaggedLogInteropEvent", b"\0" * 64)
        with pytest.raises(_core.WireError, match="type StaticStringRef is missing"):
            decode(maker)


def test_record_types_beyond_the_list() -> None:
    maker = BlockMaker((TEXT_EVENT,))
    maker.event_bytes += b"\x01\0\0\0\0"
    with pytest.raises(_core.WireError, match="record at byte 0: record type 1 of 1"):
        decode(maker)


def test_a_bomb_is_stopped() -> None:
    maker = BlockMaker((udt("Nothing", 2**20),))
    bomb = cbor2.dumps({"dependencies": lz4.frame.compress(b""), "objects": lz4.frame.compress(b"\0" * (300 << 20))})
    with pytest.raises(_core.WireError, match="objects: lz4 frame: more than 268435456 bytes"):
        _core.decode_events(*maker.metadata(), bomb)
    with pytest.raises(_core.WireError, match="more than 1000 bytes"):
        _core.decode_events(*maker.metadata(), bomb, max_bytes=1000)


def test_metadata_has_a_limit() -> None:
    huge = cbor2.dumps([udt("x" * (1 << 20), 8)])
    with pytest.raises(_core.WireError, match="objects_metadata: metadata of"):
        _core.decode_events(cbor2.dumps([]), huge, BlockMaker(()).payload())


@pytest.mark.parametrize(
    "frame", [b"", b"\x04\x22\x4d", b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18" + b"\0" * 20, b"junk" * 9]
)
def test_no_frame(frame: bytes) -> None:
    maker = BlockMaker((STATIC_EVENT,))
    for buffers in ((frame, lz4.frame.compress(b"")), (lz4.frame.compress(b""), frame)):
        payload = cbor2.dumps(dict(zip(("dependencies", "objects"), buffers, strict=True)))
        with pytest.raises(_core.WireError, match="lz4 frame"):
            _core.decode_events(*maker.metadata(), payload)
