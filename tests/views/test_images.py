"""The view `images`: pictures as real senders sent them, and pictures that are broken, many or large."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codec.block_maker import ANSI, UTF8, WIDE, text, udt
from e2e.answers import assert_same_rows, know_clocks
from e2e.recordings import recording
from e2e.reference import processes_of
from query.asking import ask, column
from senders import START_TIME
from views.traffic import MadeStream, commit_recording

from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError
from micromegas.views.images import IMAGES

COLUMNS = "process_id, stream_id, block_id, exe, username, computer, time, name, format, payload_size, data"
IMAGE_EVENTS = (udt("ImageEvent", 0), udt("OtherEvent", 0))
MIB = 1024 * 1024


def image(time: int, name: str, form: str, data: bytes, codec: int = UTF8) -> bytes:
    return struct.pack("<q", time) + text(name, codec) + text(form, codec) + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("name", ["images", "unreal_synth"])
def test_recorded_images(lake: Lake, engine: QueryEngine, name: str) -> None:
    recorded = recording(name)
    commit_recording(lake, recorded, seed=len(name))
    processes = processes_of([recorded])
    know_clocks(lake.metadata, processes)
    for process in processes.values():
        facts = process.facts
        expected = Counter(
            (
                process.process_id,
                block.header["stream_id"],
                block.header["block_id"],
                *(facts[key] for key in ("exe", "username", "computer")),
                process.time_of(event["time"]),
                event["name"],
                event["format"],
                event["data"]["$bytes"],
                event["data"]["sha256"],
            )
            for block in process.blocks_tagged("image")
            for event in block.events
        )
        assert expected.total() >= 2
        sql = f"SELECT {COLUMNS}, insert_time FROM view_instance('images', '{process.process_id}')"
        for _ in ("built", "found"):
            table = ask(engine, sql)
            columns = [column(table, position) for position in range(11)]
            columns[-1] = [hashlib.sha256(value).hexdigest() for value in columns[-1]]
            assert_same_rows(zip(*columns, strict=True), expected, name)
        inserted = dict(zip(*(column(table, each) for each in ("block_id", "insert_time")), strict=True))
        known = {block.block_id: block.insert_time for block in lake.metadata.blocks(tag="image")}
        assert inserted == {block_id: known[block_id] for block_id in inserted}
    assert column(ask(engine, "SELECT * FROM list_block_errors()"), "block_id") == []


def test_schema(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "image", IMAGE_EVENTS)
    dictionary = pa.dictionary(pa.int32(), pa.string())
    time = pa.timestamp("ns", "+00:00")
    types = [dictionary] * 3 + [time] + [dictionary] * 3 + [time, pa.string(), dictionary, pa.int64(), pa.binary()]
    names = [
        "process_id",
        "stream_id",
        "block_id",
        "insert_time",
        "exe",
        "username",
        "computer",
        "time",
        "name",
        "format",
        "payload_size",
        "data",
    ]
    expected = pa.schema([pa.field(each, kind, nullable=False) for each, kind in zip(names, types, strict=True)])
    sql = f"SELECT * FROM view_instance('images', '{stream.process_id}')"
    assert engine.describe(sql).schema.equals(expected)
    assert ask(engine, sql).schema.equals(expected)


def test_texts_of_every_sender_and_times_of_any_order(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "image", IMAGE_EVENTS)
    maker = stream.maker()
    maker.event("ImageEvent", image(500, "é\0ñ", "image/png", b"\0\xff", WIDE))
    maker.event("ImageEvent", image(-7, "ascii", "", b"", ANSI))
    maker.event("ImageEvent", image(500, "", "image/png", b"twice"))
    stream.commit(stream.block(maker, 3, 0, 10))
    sql = f"SELECT time, name, format, payload_size, data FROM view_instance('images', '{stream.process_id}')"
    rows = set(zip(*(column(ask(engine, sql), position) for position in range(5)), strict=True))
    assert rows == {
        (START_TIME + 500, "é\0ñ", "image/png", 2, b"\0\xff"),
        (START_TIME - 7, "ascii", "", 0, b""),
        (START_TIME + 500, "", "image/png", 5, b"twice"),
    }
    inside = [column(ask(engine, sql, begin=START_TIME + low, end=START_TIME + 500), 3) for low in (-7, -6, 500, 501)]
    assert [sorted(sizes) for sizes in inside] == [[0, 2, 5], [2, 5], [2, 5], []]


def test_a_broken_image_hides_no_other(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "image", IMAGE_EVENTS)
    maker = stream.maker()
    maker.event("ImageEvent", image(1, "first", "f", b"1"))
    maker.event("ImageEvent", image(2, "cut", "f", b"12345")[:-1])
    maker.event("ImageEvent", struct.pack("<q", 3) + struct.pack("<BI", UTF8, 0xFFFFFFFF))
    maker.event("OtherEvent", b"anything")
    maker.event("ImageEvent", image(4, "last", "f", b"4"))
    maker.event_bytes += b"\x09"
    block = stream.block(maker, 6, 0, 10)
    other = stream.maker()
    other.event("ImageEvent", image(5, "next block", "f", b"5"))
    stream.commit(block, stream.block(other, 1, 10, 20))
    names = column(ask(engine, f"SELECT name FROM view_instance('images', '{stream.process_id}') ORDER BY time"))
    assert names == ["first", "last", "next block"]
    errors = ask(engine, "SELECT block_id, view_set_name, error FROM list_block_errors()")
    assert column(errors, 0) == [block.block_id]
    assert column(errors, 1) == ["images"]
    (error,) = column(errors, 2)
    assert all(word in error for word in ("event 1 (ImageEvent)", "event 2 (ImageEvent)", "unknown type OtherEvent"))
    assert f"block {block.block_id} of stream {stream.stream.stream_id}" in error


def test_many_megabytes_come_in_row_groups(lake: Lake, engine: QueryEngine) -> None:
    stream = MadeStream(lake, "image", IMAGE_EVENTS)
    random = Random(5)
    expected = {}
    for number in range(6):
        maker = stream.maker()
        data = random.randbytes(1024) * (24 * 1024)
        maker.event("ImageEvent", image(number, f"image {number}", "raw", data))
        stream.commit(stream.block(maker, 1, number, number + 1))
        expected[f"image {number}"] = (24 * MIB, hashlib.md5(data).hexdigest())
    sql = f"SELECT name, payload_size, md5(data) FROM view_instance('images', '{stream.process_id}')"
    table = ask(engine, sql)
    rows = zip(*(column(table, position) for position in range(3)), strict=True)
    assert {name: (size, digest) for name, size, digest in rows} == expected
    (partition,) = lake.metadata.partitions(IMAGES.name, stream.process_id)
    assert partition.file_path is not None
    if lake.objects.local_root is not None:
        assert pq.read_metadata(lake.objects.local_root / partition.file_path).num_row_groups > 1


def test_there_is_no_global_instance(lake: Lake, engine: QueryEngine) -> None:
    for sql in ("SELECT * FROM images", "SELECT * FROM view_instance('images', 'global')"):
        with pytest.raises(QueryError) as refused:
            ask(engine, sql)
        assert refused.value.kind == "invalid"
