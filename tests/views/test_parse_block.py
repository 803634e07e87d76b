"""The table function `parse_block`: every recorded event, and blocks that can't be read, by name."""

from __future__ import annotations

import json
import struct
from typing import Any

import pyarrow as pa
import pytest
import senders
from codec.block_maker import DEPENDENCIES, BlockMaker, member, reference, text, udt
from e2e.recordings import SCENARIOS, recording
from engine.jsonb_reference import encode
from query.asking import ask, column, one, refusal
from views.traffic import MadeStream, commit_recording

from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.wire import Batch

SCALARS = udt(
    "Scalars",
    29,
    member("small", "u8", 0, 1),
    member("wide", "u64", 1, 8),
    member("signed", "i64", 9, 8),
    member("real", "f64", 17, 8),
    member("narrow", "u32", 25, 4),
)
REFERRING = udt("Referring", 8, reference("what", 0))
EVENTS = (SCALARS, REFERRING, udt("Mystery", 0), udt("ImageEvent", 0), udt("TaggedLogString", 0))


def in_json(value: Any) -> Any:
    """An event of an expected file as `parse_block` tells it."""
    if isinstance(value, list):
        return dict(value)
    if not isinstance(value, dict):
        return value
    if "$bytes" in value:
        return f"{value['$bytes']} bytes"
    if "$f64" in value:
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[value["$f64"]]
    return {key.replace("$type", "__type"): in_json(member) for key, member in value.items()}


def parsed(texts: list[str]) -> list[Any]:
    return [json.loads(each, parse_constant=str) for each in texts]


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "service"])
def test_recorded_events(lake: Lake, engine: QueryEngine, scenario: str) -> None:
    recorded = recording(scenario)
    commit_recording(lake, recorded, seed=1)
    for block in recorded.blocks:
        block_id = block.header["block_id"]
        table = ask(engine, f"SELECT object_index, type_name, jsonb_format_json(value) FROM parse_block('{block_id}')")
        rows = sorted(zip(*(column(table, position) for position in range(3)), strict=True))
        assert [row[0] for row in rows] == list(range(len(block.events)))
        assert [row[1] for row in rows] == [event["$type"] for event in block.events]
        assert parsed([row[2] for row in rows]) == [in_json(event) for event in block.events]


def test_a_recorded_block_of_many_events(lake: Lake, engine: QueryEngine) -> None:
    recorded = recording("service")
    commit_recording(lake, recorded, seed=1)
    block = max(recorded.blocks, key=lambda each: len(each.events))
    table = ask(
        engine,
        "SELECT object_index, type_name, jsonb_as_i64(jsonb_get(value, 'time')) FROM "
        f"parse_block('{block.header['block_id']}') ORDER BY object_index",
    )
    assert column(table, 0) == list(range(len(block.events)))
    assert column(table, 1) == [event["$type"] for event in block.events]
    assert column(table, 2) == [event["time"] for event in block.events]
    assert table.num_rows > 50_000


def test_a_block_is_read_in_steps(lake: Lake, engine: QueryEngine) -> None:
    """More events than one step reads, then more bytes than that."""

    def many(maker: BlockMaker) -> None:
        maker.event_bytes += b"".join(b"\0" + struct.pack("<BQqdI", 0, n, 0, 0.0, 0) for n in range(150_000))

    def large(maker: BlockMaker) -> None:
        long = maker.text("long" * 2**20)
        for _ in range(10):
            maker.event("Referring", struct.pack("<Q", long))

    block = f"parse_block('{commit(lake, many)}')"
    whole = ask(engine, f"SELECT object_index, jsonb_as_i64(jsonb_get(value, 'wide')) FROM {block} ORDER BY 1")
    assert column(whole, 0) == column(whole, 1) == list(range(150_000))
    for limit in (65_536, 65_537, 140_000, 150_001):
        indexes = column(ask(engine, f"SELECT object_index FROM {block} LIMIT {limit}"))
        assert sorted(indexes) == list(range(min(limit, 150_000)))
    sizes = ask(engine, f"SELECT length(jsonb_format_json(value)) FROM parse_block('{commit(lake, large)}')")
    assert column(sizes) == [4 * 2**20 + len('{"__type":"Referring","what":""}')] * 10


def test_schema(lake: Lake, engine: QueryEngine) -> None:
    block_id = commit(lake, lambda maker: None)
    sql = f"SELECT * FROM parse_block('{block_id}')"
    expected = pa.schema(
        [
            pa.field("object_index", pa.int64(), nullable=False),
            pa.field("type_name", pa.string(), nullable=False),
            pa.field("value", pa.binary(), nullable=False),
        ]
    )
    assert engine.describe(sql).schema.equals(expected)
    empty = ask(engine, sql)
    assert empty.schema.equals(expected)
    assert empty.num_rows == 0


def commit(lake: Lake, make: Any, dependencies: tuple[dict[str, Any], ...] = DEPENDENCIES) -> str:
    """Commits a stream of the types EVENTS with one block that `make` fills; the block's id."""
    maker = BlockMaker(EVENTS, dependencies)
    make(maker)
    process = senders.process(tsc_frequency=0)
    metadata = maker.metadata()
    stream = senders.stream(
        process.process_id, tags=[], dependencies_metadata=metadata[0], objects_metadata=metadata[1]
    )
    block = senders.block(stream, payload=maker.payload())
    lake.commit(Batch([process], [stream], [block]))
    return block.block_id


def test_numbers_keep_their_kind(lake: Lake, engine: QueryEngine) -> None:
    def make(maker: BlockMaker) -> None:
        maker.event("Scalars", struct.pack("<BQqdI", 255, 2**64 - 1, -(2**63), -0.0, 2**32 - 1))
        maker.event("Mystery", b"nobody knows")

    block_id = commit(lake, make)
    values = column(ask(engine, f"SELECT value FROM parse_block('{block_id}') ORDER BY object_index"))
    fields = {"small": 255, "wide": 2**64 - 1, "signed": -(2**63), "real": -0.0, "narrow": 2**32 - 1}
    assert values == [encode({"__type": "Scalars"} | fields), encode({"__type": "Mystery"})]


def test_texts_properties_descriptions_and_bytes(lake: Lake, engine: QueryEngine) -> None:
    def make(maker: BlockMaker) -> None:
        description = maker.log_description("f {}", "t", 4)
        properties = maker.properties(("b", "1"), ("é", ""), ("b", "2"))
        nothing = maker.properties()
        body = struct.pack("<QQq", description, properties, 7) + text("message \0 'quoted'")
        maker.event("TaggedLogString", body)
        maker.event("TaggedLogString", struct.pack("<QQq", description, nothing, -8) + text(""))
        maker.event("ImageEvent", struct.pack("<q", 9) + text("n") + text("f") + struct.pack("<I", 3) + b"abc")
        maker.event("Referring", struct.pack("<Q", properties))

    block_id = commit(lake, make)
    table = ask(engine, f"SELECT jsonb_format_json(value) FROM parse_block('{block_id}') ORDER BY object_index")
    tagged, bare, image, referring = parsed(column(table))
    description = tagged.pop("desc")
    assert (description["__type"], description["fmt_str"], description["level"]) == ("LogMetadataRecord", "f {}", 4)
    pairs = {"b": "2", "é": ""}
    assert tagged == {"__type": "TaggedLogString", "properties": pairs, "msg": "message \0 'quoted'", "time": 7}
    assert (bare["properties"], bare["msg"], bare["time"]) == ({}, "", -8)
    assert image == {"__type": "ImageEvent", "time": 9, "name": "n", "format": "f", "data": "3 bytes"}
    assert referring == {"__type": "Referring", "what": pairs}


def test_questions_about_values(lake: Lake, engine: QueryEngine) -> None:
    """`value` is a plain binary column; the functions take it as they take the dictionaries of the views."""
    block_id = commit(lake, lambda maker: [maker.event("Scalars", bytes(28) + bytes([n])) for n in range(3)])
    block = f"parse_block('{block_id.upper()}')"
    assert column(ask(engine, f"SELECT property_get(value, 'small') FROM {block}")) == ["0"] * 3
    assert column(ask(engine, f"SELECT properties_length(value) FROM {block}")) == [6] * 3
    assert one(ask(engine, f"SELECT sum(jsonb_as_f64(jsonb_get(value, 'REAL'))) FROM {block}")) == 0
    assert one(ask(engine, f"SELECT count(*) FROM {block}")) == 3
    assert one(ask(engine, f"SELECT jsonb_as_string(jsonb_get(value, '__type')) FROM {block} LIMIT 1")) == "Scalars"
    joined = f"SELECT count(*) FROM {block} a JOIN {block} b ON a.object_index < b.object_index"
    assert one(ask(engine, joined)) == 3
    assert one(ask(engine, f"SELECT count(*) FROM {block}", begin=5, end=4)) == 3  # it has no time


def broken_after(good: int) -> Any:
    def make(maker: BlockMaker) -> None:
        for _ in range(good):
            maker.event("Scalars", bytes(29))
        maker.event("Referring", struct.pack("<Q", 4711))
        maker.event("Scalars", bytes(29))

    return make


def test_a_broken_event_fails_the_query_by_name(lake: Lake, engine: QueryEngine) -> None:
    block_id = commit(lake, broken_after(3))
    for statement in ("SELECT *", "SELECT count(*)", "SELECT type_name"):
        error = refusal(engine, f"{statement} FROM parse_block('{block_id}')")
        assert error.kind == "invalid"
        assert f"block {block_id} of stream " in error.message
        assert "event 3 (Referring): member what: no dependency has the id 4711" in error.message
        assert "LIMIT 3 gives the events before it" in error.message


def test_a_limit_stops_before_what_is_broken(lake: Lake, engine: QueryEngine) -> None:
    block_id = commit(lake, broken_after(3))
    block = f"parse_block('{block_id}')"
    for limited in (
        f"SELECT object_index FROM {block} LIMIT 3",
        f"SELECT object_index FROM {block} LIMIT 2",
        f"SELECT object_index, jsonb_format_json(value) FROM {block} LIMIT 1 OFFSET 2",
        f"SELECT object_index FROM (SELECT * FROM {block} LIMIT 3) ORDER BY object_index DESC",
        f"SELECT * FROM {block} LIMIT 0",
    ):
        assert ask(engine, limited).num_rows <= 3
    for unlimited in (
        f"SELECT object_index FROM {block} LIMIT 4",
        f"SELECT object_index FROM {block} LIMIT 2 OFFSET 2",
        f"SELECT object_index FROM {block} WHERE type_name = 'Nothing' LIMIT 1",
        f"SELECT object_index FROM {block} ORDER BY object_index DESC LIMIT 1",
        f"SELECT count(*) FROM {block} LIMIT 1",
        f"SELECT object_index FROM (SELECT * FROM {block} LIMIT 1) UNION ALL SELECT object_index FROM {block}",
    ):
        assert "event 3" in refusal(engine, unlimited).message


def test_a_limit_counts_what_the_filter_lets_pass(lake: Lake, engine: QueryEngine) -> None:
    def make(maker: BlockMaker) -> None:
        for _ in range(100):
            maker.event("Mystery", b"")
        maker.event("Scalars", bytes(29))

    block_id = commit(lake, make)
    sql = f"SELECT object_index FROM parse_block('{block_id}') WHERE type_name = 'Scalars' LIMIT 1"
    assert one(ask(engine, sql)) == 100


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (b"\x63", "record type 99 of 5"),
        (b"\x00short", "Scalars: length 29 past the end of the buffer"),
        (b"\x02\xff\xff\xff\xff", "Mystery: length 4294967295 past the end of the buffer"),
        (b"\x03\x04\0\0\0abcd", "event 1 (ImageEvent): length 8 past the end of the record"),
    ],
)
def test_a_corrupt_record(lake: Lake, engine: QueryEngine, spoil: bytes, words: str) -> None:
    def make(maker: BlockMaker) -> None:
        maker.event("Scalars", bytes(29))
        maker.event_bytes += spoil

    block_id = commit(lake, make)
    error = refusal(engine, f"SELECT * FROM parse_block('{block_id}')")
    assert (error.kind, block_id in error.message, words in error.message) == ("invalid", True, True), error.message
    assert ask(engine, f"SELECT * FROM parse_block('{block_id}') LIMIT 1").num_rows == 1


def test_a_payload_that_is_none(lake: Lake, engine: QueryEngine) -> None:
    process = senders.process()
    stream = senders.stream(process.process_id)
    block = senders.block(stream)
    lake.commit(Batch([process], [stream], [block]))
    error = refusal(engine, f"SELECT * FROM parse_block('{block.block_id}') LIMIT 1")
    assert (error.kind, block.block_id in error.message) == ("invalid", True)


def test_a_payload_that_is_gone(lake: Lake, engine: QueryEngine) -> None:
    block_id = commit(lake, broken_after(3))
    row = lake.metadata.block(block_id)
    assert row is not None
    lake.objects.delete([row.object_key])
    error = refusal(engine, f"SELECT * FROM parse_block('{block_id}')")
    assert (error.kind, block_id in error.message) == ("internal", True)


def test_descriptions_that_unfold_without_end_are_refused(lake: Lake, engine: QueryEngine) -> None:
    """A few kilobytes: each object refers eight times to the one before it, or to itself."""
    octopus = udt("Octopus", 72, member("id", "u64", 0, 8), *(reference(f"arm{n}", 8 + 8 * n) for n in range(8)))
    types = (*DEPENDENCIES, octopus)

    def of_depth(depth: int) -> Any:
        def make(maker: BlockMaker) -> None:
            last = maker.text("x" * 100)
            for _ in range(depth):
                last = maker.dependency("Octopus", struct.pack("<8Q", *[last] * 8))
            maker.event("Referring", struct.pack("<Q", last))

        return make

    def itself(maker: BlockMaker) -> None:
        maker.event("Referring", struct.pack("<Q", maker.dependency("Octopus", struct.pack("<8Q", *[1] * 8))))

    wide = refusal(engine, f"SELECT * FROM parse_block('{commit(lake, of_depth(7), types)}')")
    assert "the value has more than 268435456 bytes" in wide.message
    deep = refusal(engine, f"SELECT * FROM parse_block('{commit(lake, of_depth(12), types)}')")
    assert "objects refer to one another deeper than 8" in deep.message
    circular = refusal(engine, f"SELECT * FROM parse_block('{commit(lake, itself, types)}')")
    assert "is used before it is written" in circular.message
    assert ask(engine, f"SELECT * FROM parse_block('{commit(lake, of_depth(3), types)}')").num_rows == 1


def test_blocks_that_wait_for_their_announcements(lake: Lake, engine: QueryEngine) -> None:
    process = senders.process()
    stream = senders.stream(process.process_id)
    block = senders.block(stream, payload=BlockMaker(()).payload())
    sql = f"SELECT * FROM parse_block('{block.block_id}')"
    assert refusal(engine, sql).message == f"unknown block {block.block_id}"
    lake.commit(Batch([], [], [block]))
    error = refusal(engine, sql)
    assert error.kind == "invalid"
    assert f"block {block.block_id} can't be read yet: stream {stream.stream_id} was not announced" in error.message
    lake.commit(Batch([], [stream], []))
    assert f"process {process.process_id} was not announced" in refusal(engine, sql).message
    lake.commit(Batch([process], [], []))
    assert ask(engine, sql).num_rows == 0


def test_streams_of_another_format(lake: Lake, engine: QueryEngine) -> None:
    process = senders.process()
    stream = senders.stream(process.process_id, format="someday/v1")
    block = senders.block(stream)
    lake.commit(Batch([process], [stream], [block]))
    error = refusal(engine, f"SELECT * FROM parse_block('{block.block_id}')")
    assert error.kind == "unimplemented"
    assert f"block {block.block_id} of stream {stream.stream_id}: format 'someday/v1' is not known" == error.message


@pytest.mark.parametrize(
    "arguments",
    ["", "1", "NULL", "'not an id'", "''", "'a', 'b'", "$1", "block_id", "'{}'"],
)
def test_arguments(lake: Lake, engine: QueryEngine, arguments: str) -> None:
    arguments = arguments.format(senders.new_id())
    error = refusal(engine, f"SELECT * FROM parse_block({arguments})", parameters={"1": pa.scalar("x")})
    assert error.kind == "invalid"
    assert "block" in error.message


def test_explain_decodes_nothing(lake: Lake, engine: QueryEngine) -> None:
    block_id = commit(lake, broken_after(0))
    assert ask(engine, f"EXPLAIN SELECT * FROM parse_block('{block_id}')").num_rows > 0


def test_made_streams_of_views_can_be_parsed_too(lake: Lake, engine: QueryEngine) -> None:
    """What a view leaves out because its clock or its tag is unknown is still there to be looked at."""
    stream = MadeStream(lake, "whatever", EVENTS, of=None)
    maker = stream.maker()
    maker.event("Mystery", b"")
    block = stream.block(maker, 1, 0, 1)
    stream.commit(block)
    table = ask(engine, f"SELECT b.nb_objects, p.type_name FROM blocks b CROSS JOIN parse_block('{block.block_id}') p")
    assert (column(table, 0), column(table, 1)) == ([1], ["Mystery"])
