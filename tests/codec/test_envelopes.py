"""Bodies of the three requests: what is read, what is refused, and that no announced length is believed."""

from __future__ import annotations

import io
from typing import Any

import cbor2
import pytest

from micromegas import _core

ID = "5a0c1e7e-0000-4000-8000-00000000beef"
PROCESS: dict[str, Any] = {
    "process_id": ID,
    "exe": "e",
    "username": "u",
    "realname": "r",
    "computer": "c",
    "distro": "d",
    "cpu_brand": "b",
    "tsc_frequency": 0,
    "start_time": "2026-11-22T13:49:06.5Z",
    "start_ticks": -5,
    "parent_process_id": None,
    "properties": {"": "", "é": "\0"},
}
STREAM: dict[str, Any] = {
    "process_id": ID,
    "stream_id": ID,
    "dependencies_metadata": [],
    "objects_metadata": [
        {
            "name": "E",
            "size": 8,
            "members": [{"name": "m", "type_name": "u64", "offset": 0, "size": 8, "is_reference": False}],
            "is_reference": False,
        }
    ],
    "tags": ["log"],
    "properties": {},
}
BLOCK: dict[str, Any] = {
    "block_id": ID,
    "stream_id": ID,
    "process_id": ID,
    "begin_time": "2026-11-22T13:49:06+00:00",
    "end_time": "2026-11-22T13:49:07+00:00",
    "begin_ticks": -1,
    "end_ticks": 2**63 - 1,
    "payload": {"dependencies": b"d", "objects": b"o"},
    "object_offset": 0,
    "nb_objects": -1,
}
BODIES = {
    "process": (PROCESS, _core.parse_process),
    "stream": (STREAM, _core.parse_stream),
    "block": (BLOCK, _core.parse_block),
}
EVERY_KEY = [(kind, key) for kind, (body, _) in BODIES.items() for key in body]


def dumps(value: Any, *, indefinite: bool) -> bytes:
    target = io.BytesIO()
    cbor2.CBOREncoder(target, indefinite_containers=indefinite).encode(value)
    return target.getvalue()


@pytest.mark.parametrize("kind", BODIES)
def test_the_form_of_the_body_does_not_matter(kind: str) -> None:
    body, parse = BODIES[kind]
    expected = parse(cbor2.dumps(body))
    assert parse(dumps(body, indefinite=True)) == expected
    assert parse(cbor2.dumps(dict(reversed(body.items())))) == expected
    assert parse(cbor2.dumps(body | {"future": [{"a": b"x"}, 1.5, None, cbor2.CBORTag(9, [])]})) == expected
    assert parse(cbor2.dumps(cbor2.CBORTag(55799, body)) + b"\xff\xff") == expected


@pytest.mark.parametrize(("kind", "key"), EVERY_KEY)
def test_every_key_is_required_once(kind: str, key: str) -> None:
    body, parse = BODIES[kind]
    without = {name: value for name, value in body.items() if name != key}
    with pytest.raises(_core.WireError, match=f"key `{key}` is missing"):
        parse(cbor2.dumps(without))
    once = cbor2.dumps(body)
    twice = bytes([once[0] + 1]) + once[1:] + cbor2.dumps(key) + cbor2.dumps(body[key])
    with pytest.raises(_core.WireError, match=f"key `{key}` twice"):
        parse(twice)


@pytest.mark.parametrize(("kind", "key"), EVERY_KEY)
@pytest.mark.parametrize("wrong", [1.0, True, b"x", [None], {"a": 1}, 2**64], ids=repr)
def test_a_value_of_the_wrong_kind_is_refused(kind: str, key: str, wrong: Any) -> None:
    body, parse = BODIES[kind]
    with pytest.raises(_core.WireError, match=f"^insert_{kind}: {key}: "):
        parse(cbor2.dumps(body | {key: wrong}))


@pytest.mark.parametrize("kind", BODIES)
def test_every_cut_is_refused(kind: str) -> None:
    body, parse = BODIES[kind]
    for whole in (dumps(body, indefinite=False), dumps(body, indefinite=True)):
        for length in range(len(whole)):
            with pytest.raises(_core.WireError):
                parse(whole[:length])


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("major", [0x5B, 0x7B, 0x9B, 0xBB])
@pytest.mark.parametrize("length", [2**20, 2**40, 2**64 - 1])
def test_announced_lengths_are_not_believed(kind: str, major: int, length: int) -> None:
    _, parse = BODIES[kind]
    item = bytes([major]) + length.to_bytes(8, "big") + b"abc"
    for body in (item, b"\xa1" + item, b"\xa1\x61x" + item, b"\xa1" + cbor2.dumps("payload") + item):
        with pytest.raises(_core.WireError):
            parse(body)


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xc1", b"\xbf\x61a"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    with pytest.raises(_core.WireError):
        _core.parse_block(b"\xa1\x61x" + opening * 1_000_000)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x80", b"\xf6", b"{}", cbor2.dumps(list(BLOCK.values()))])
def test_only_a_map_is_a_body(body: bytes) -> None:
    for _, parse in BODIES.values():
        with pytest.raises(_core.WireError):
            parse(body)


def test_no_parent_has_two_forms() -> None:
    assert _core.parse_process(cbor2.dumps(PROCESS | {"parent_process_id": ""}))[10] is None
    assert _core.parse_process(cbor2.dumps(PROCESS | {"parent_process_id": ID.upper()}))[10] == ID


def test_equal_layouts_have_equal_bytes() -> None:
    shuffled = [{key: udt[key] for key in sorted(udt)} for udt in STREAM["objects_metadata"]]
    plain = _core.parse_stream(cbor2.dumps(STREAM))
    other = _core.parse_stream(dumps(STREAM | {"objects_metadata": shuffled}, indefinite=True))
    assert plain == other
    assert plain[3] == cbor2.dumps(STREAM["objects_metadata"])


@pytest.mark.parametrize("bad", ["../../etc/passwd", "5a0c1e7e", "5a0c1e7e-0000-4000-8000-00000000beeg", " " * 36, ""])
def test_ids_are_uuids(bad: str) -> None:
    for key in ("block_id", "stream_id", "process_id"):
        with pytest.raises(_core.WireError, match="is no uuid"):
            _core.parse_block(cbor2.dumps(BLOCK | {key: bad}))


def test_integers_have_their_range() -> None:
    for key, value in {"nb_objects": 2**31, "begin_ticks": 2**63, "object_offset": -(2**63) - 1}.items():
        with pytest.raises(_core.WireError, match="does not fit"):
            _core.parse_block(cbor2.dumps(BLOCK | {key: value}))


def test_a_zone_is_required() -> None:
    with pytest.raises(_core.WireError, match="is no RFC 3339 time"):
        _core.parse_block(cbor2.dumps(BLOCK | {"begin_time": "2026-11-22T13:49:06"}))
