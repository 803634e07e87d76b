"""Odd, broken and malicious input over HTTP: a clear answer, or kept and reported. Never a crash, never a good row
hidden, never more memory than the limits say."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import cbor2
from e2e.answers import properties_of, records
from e2e.hostile_posts import (
    MEMORY_LIMIT,
    MIB,
    TELLTALES,
    accept,
    listed_errors,
    messages,
    post,
    refuse,
)
from e2e.made_traffic import (
    DEPENDENCIES,
    LOG_DEPENDENCIES,
    OBJECTS,
    START_TICKS,
    START_TIME,
    MadeProcess,
    MadeStream,
    block_request,
    dynamic,
    encoded_string,
    frame,
    log_event,
    member,
    property_set,
    reference,
    tagged_log_event,
    text_dependency,
    time_text,
    udt,
)
from e2e.recordings import SCENARIOS, Request, recording
from e2e.serving import Service, serving, wait_until_materialized

from micromegas import _core
from micromegas.config import LakeSettings


def made_log_stream(service: Service, seed: int, **process: Any) -> MadeStream:
    """An announced log stream of an announced process."""
    made = MadeProcess(Random(seed), **process)
    stream = made.stream("log")
    accept(service, [made.request(), stream.request()])
    return stream


def spoiled(stream: MadeStream, dependencies: bytes, objects: bytes, nb_objects: int = 1) -> dict[str, Any]:
    return stream.fields(dependencies, objects, nb_objects)


def assert_only_good_rows(service: Service, stream: MadeStream, bad: dict[str, Any], good: list[str]) -> None:
    """The good messages are all there, now and from partitions, and the bad block is listed."""
    for _ in range(2):
        assert messages(service, stream.process_id) == good
        error = listed_errors(service)[bad["block_id"]]["error"]
        assert bad["block_id"] in error
        assert not TELLTALES.search(error), error
        wait_until_materialized(service)
    assert service.peak_memory() < MEMORY_LIMIT


def test_recursive_types(service: Service) -> None:
    made = MadeProcess(Random(1))
    good, bad = made.stream("log"), made.stream("log")
    loop = udt("LogMetadataRecord", 32, member("id", "u64", 0), member("again", "LogMetadataRecord", 0, 32))
    event = udt("LogStaticStrEvent", 16, member("desc", "LogStaticStrEvent", 0, 16), member("time", "i64", 8))
    accept(service, [made.request(), good.request()])
    accept(
        service,
        [bad.request(dependencies_metadata=[DEPENDENCIES["log"][0], loop], objects_metadata=[event, *OBJECTS["log"]])],
    )
    spoiled_block = spoiled(bad, LOG_DEPENDENCIES, struct.pack("<BQq", 0, 3, bad.ticks()))
    accept(service, [block_request(spoiled_block), block_request(good.logs(["one", "two"]))])
    assert_only_good_rows(service, good, spoiled_block, ["one", "two"])


def test_decompression_bombs(service: Service) -> None:
    stream = made_log_stream(service, 2)
    zeros = frame(bytes(600 * MIB))
    assert len(zeros) < 4 * MIB
    bombs = []
    for buffer in ("dependencies", "objects"):
        bomb = spoiled(stream, LOG_DEPENDENCIES, log_event("hidden", stream.ticks()))
        bomb["payload"][buffer] = zeros
        bombs.append(bomb)
    accept(service, [block_request(bomb) for bomb in bombs])
    accept(service, [block_request(stream.logs(["after the bombs"]))])
    for bomb in bombs:
        assert_only_good_rows(service, stream, bomb, ["after the bombs"])


def in_columns(fields: dict[str, Any]) -> dict[str, Any]:
    """A log block of a stream that is announced in columns."""
    layouts = cbor2.dumps(DEPENDENCIES["log"]), cbor2.dumps(OBJECTS["log"])
    columns = _core.columns_payload(*layouts, cbor2.dumps(fields["payload"]))
    return fields | {"payload": cbor2.loads(columns)}


def test_formats(service: Service) -> None:
    """What a stream says and what its blocks are: where that differs, only those blocks have no rows."""
    made = MadeProcess(Random(22))
    streams = {
        name: made.stream("log") for name in ("columns", "no columns", "columns in transit", "unheard of", "bomb", "")
    }
    announced = {
        "columns": "micromegas-columns/1",
        "no columns": "micromegas-columns/1",
        "columns in transit": "micromegas-transit",
        "unheard of": "micromegas-columns/2",
        "bomb": "micromegas-columns/1",
    }
    accept(service, [made.request(), streams[""].request()])
    accept(service, [streams[name].request(format=announced[name]) for name in announced])
    blocks = {name: stream.logs([f"of {name}"]) for name, stream in streams.items()}
    good = [in_columns(blocks["columns"]), blocks[""]]
    # 2^27 records out of 8 bytes
    bomb = {"dependencies": b"", "objects": b"\xc1\x06\x00" + b"\x00\x80\x80\x80\x40\x00"}
    bad = [
        blocks["no columns"],
        in_columns(blocks["columns in transit"]),
        blocks["unheard of"],
        blocks["bomb"] | {"payload": bomb},
    ]
    accept(service, map(block_request, bad[:2] + good + bad[2:]))
    for _ in range(2):
        assert sorted(messages(service, made.process_id)) == ["of ", "of columns"]
        errors = [listed_errors(service)[block["block_id"]]["error"] for block in bad]
        for error, telling in zip(
            errors, ("beside a block", "no lz4 frame", "columns/2", "records of more than"), strict=True
        ):
            assert telling in error, error
        wait_until_materialized(service)
    sql = f"SELECT stream_id, format FROM streams WHERE process_id = '{made.process_id}'"
    assert {row["stream_id"]: row["format"] for row in records(service.query(sql))} == {
        stream.stream_id: announced.get(name, "micromegas-transit") for name, stream in streams.items()
    }
    for fields in good:
        sql = f"SELECT jsonb_format_json(value) AS value FROM parse_block('{fields['block_id']}')"
        assert '"of ' in service.query(sql)["value"][0].as_py()
    assert service.peak_memory() < MEMORY_LIMIT


def amplified(stream: MadeStream) -> Request:
    """A block of 40 KB whose half a million events all refer to one text of 1 MiB; its layout is `STATIC_ONLY`."""
    dependencies = (
        text_dependency(1, "x" * MIB) + text_dependency(2, "made::log") + struct.pack("<BQQQII", 1, 3, 1, 2, 4, 1)
    )
    events = struct.pack("<BQq", 0, 3, START_TICKS) * 500_000
    return block_request(stream.fields(dependencies, events, 500_000))


STATIC_ONLY = [udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "i64", 8))]


def test_one_text_a_million_times(service: Service) -> None:
    """What bounds the buffers doesn't bound the rows."""
    made = MadeProcess(Random(3))
    good, bad = made.stream("log"), made.stream("log")
    accept(service, [made.request(), good.request(), bad.request(objects_metadata=STATIC_ONLY)])
    accept(service, [amplified(bad) for _ in range(3)])
    accept(service, [block_request(good.logs(["beside"]))])
    # So much may be too much for a query to decode by itself; from partitions it must come.
    wait_until_materialized(service)
    sql = f"SELECT msg FROM log_entries WHERE stream_id = '{good.stream_id}'"
    assert service.query(sql)["msg"].to_pylist() == ["beside"]
    assert service.peak_memory() < MEMORY_LIMIT


def test_merging_of_long_texts(folder_lake: LakeSettings) -> None:
    """Partitions whose rows take a thousand times the room of their files, and all overlap in time."""
    made = MadeProcess(Random(18))
    stream = made.stream("log")
    with serving(folder_lake) as service:
        accept(service, [made.request(), stream.request(objects_metadata=STATIC_ONLY)])
        for _ in range(12):
            accept(service, [amplified(stream)])
        wait_until_materialized(service)
        [before] = records(service.query("SELECT count(*) AS n FROM log_entries"))
    merging = subprocess.run(
        [sys.executable, "-m", "e2e.merge_everything", str(folder_lake.lake_dir)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(merging.stdout) < MEMORY_LIMIT
    with serving(folder_lake, "query-server") as queries:
        assert records(queries.query("SELECT count(*) AS n FROM log_entries")) == [before]
        assert before["n"] > 1000


def test_lies_about_the_number_of_events(service: Service) -> None:
    stream = made_log_stream(service, 4)
    for lie in (0, -1, -(2**31), 2**31 - 1, 1_000_000):
        accept(service, [block_request(stream.logs([f"said {lie}", "two"]) | {"nb_objects": lie})])
    expected = [text for lie in (0, -1, -(2**31), 2**31 - 1, 1_000_000) for text in (f"said {lie}", "two")]
    for _ in range(2):
        assert messages(service, stream.process_id) == expected
        instance = f"SELECT msg FROM view_instance('log_entries', '{stream.process_id}') ORDER BY time"
        assert service.query(instance)["msg"].to_pylist() == expected
        wait_until_materialized(service)
    refuse(service, [block_request(stream.logs(["x"]) | {"nb_objects": lie}) for lie in (2**31, -(2**31) - 1, 1.0)])


def test_layouts_of_thousands_of_members(service: Service) -> None:
    made = MadeProcess(Random(5))
    good, wide, endless = made.stream("log"), made.stream("log"), made.stream("log")
    members = [member(f"m{number}", "u64", 8) for number in range(2000)]
    static = udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", "i64", 8), *members)
    accept(service, [made.request(), good.request(), wide.request(objects_metadata=[static])])
    event = struct.pack("<BQq", 0, 3, wide.ticks())
    accept(service, [block_request(wide.fields(LOG_DEPENDENCIES, event * 1000, 1000))])
    many = [udt(f"T{number}", 16, *members) for number in range(200)]
    accept(service, [endless.request(objects_metadata=many)])
    unreadable = endless.fields(LOG_DEPENDENCIES, event * 1000, 1000)
    accept(service, [block_request(unreadable), block_request(good.logs(["good"]))])
    assert Counter(messages(service, made.process_id)) == {"format {}": 1000, "good": 1}
    assert unreadable["block_id"] in listed_errors(service)
    assert service.peak_memory() < MEMORY_LIMIT


def test_texts_of_every_kind(service: Service) -> None:
    stream = made_log_stream(service, 6)
    texts = [
        "",
        "nul \0 inside",
        "\0",
        "x" * (3 * MIB),
        "line\nline\r\n\t",
        "\u2028\ufeff\U0010ffff",
        "'; DROP TABLE blocks; --",
    ]
    accept(service, [block_request(stream.logs(texts))])
    raw = [b"\xff\xfe bytes", "latin1 \xe9".encode("latin-1")]
    events = b"".join(log_event(text, stream.ticks(position)) for position, text in enumerate(raw))
    accept(service, [block_request(stream.fields(LOG_DEPENDENCIES, events, 2))])
    wide = dynamic(0, struct.pack("<Qq", 3, stream.ticks()) + encoded_string("é🚀".encode("utf-16-le"), 1))
    accept(service, [block_request(stream.fields(LOG_DEPENDENCIES, wide, 1))])
    expected = [*texts, "\ufffd\ufffd bytes", "latin1 \ufffd", "é🚀"]
    for _ in range(2):
        assert messages(service, stream.process_id) == expected
        wait_until_materialized(service)


def test_properties_of_every_kind(service: Service) -> None:
    stream = made_log_stream(service, 7)
    names = ["level", "target", "nul\0name", "", "twice"]
    values = ["no such level", "error", "elsewhere", "nul\0value", "last", "🚀" * 1000]
    texts = {text: 10 + position for position, text in enumerate([*names, *values])}
    dependencies = LOG_DEPENDENCIES + b"".join(text_dependency(number, text) for text, number in texts.items())
    sets = [
        {"level": "no such level"},
        {"level": "error", "target": "elsewhere"},
        {"nul\0name": "nul\0value", "": "last", "twice": "🚀" * 1000},
        {},
    ]
    events = b""
    for number, pairs in enumerate(sets):
        dependencies += property_set(100 + number, [(texts[name], texts[value]) for name, value in pairs.items()])
        events += tagged_log_event(f"tagged {number}", stream.ticks(number), 100 + number)
    dependencies += property_set(200, [(texts["twice"], texts["error"]), (texts["twice"], texts["last"])])
    events += tagged_log_event("tagged 4", stream.ticks(4), 200)
    accept(service, [block_request(stream.fields(dependencies, events, 5))])
    sql = f"SELECT level, target, properties FROM log_entries WHERE process_id = '{stream.process_id}' ORDER BY time"
    for _ in range(2):
        rows = records(service.query(sql))
        assert [row["level"] for row in rows] == [4, 2, 4, 4, 4]
        assert [row["target"] for row in rows] == ["made::log", "elsewhere", "made::log", "made::log", "made::log"]
        found = [dict(properties_of(row["properties"])) for row in rows]
        assert found == [*sets, {"twice": "last"}]
        wait_until_materialized(service)


def test_announcements_of_every_kind(service: Service) -> None:
    texts = {"exe": "nul\0exe", "username": "u" * 100_000, "computer": "🚀" * 300, "realname": "", "distro": "\0"}
    properties = {"nul\0key": "nul\0value", "": "empty key", "micromegas.audience": "mine", "big": "x" * MIB}
    made = MadeProcess(Random(8), properties=properties, **texts)
    stream = made.stream("log", **{"thread-name": "nul\0", "micromegas.x": "y"})
    accept(
        service, [block_request(stream.logs(["kept"])), stream.request(tags=["log", "nul\0", "", "log"] + ["t"] * 999)]
    )
    accept(service, [made.request()])
    [row] = records(service.query(f"SELECT * FROM processes WHERE process_id = '{made.process_id}'"))
    assert row["exe"] == "nulexe"
    assert row["username"] == "u" * 255
    assert row["computer"] == "🚀" * 255
    assert dict(properties_of(row["properties"])) == {"nulkey": "nulvalue", "": "empty key", "big": "x" * MIB}
    [row] = records(service.query(f"SELECT * FROM streams WHERE stream_id = '{stream.stream_id}'"))
    assert dict(properties_of(row["properties"])) == {"thread-name": "nul"}
    assert messages(service, made.process_id) == ["kept"]
    # Who comes second changes nothing.
    made.changes = {"exe": "other"}
    accept(service, [made.request(), stream.request(tags=["metrics"])])
    assert messages(service, made.process_id) == ["kept"]
    [row] = records(service.query(f"SELECT exe FROM processes WHERE process_id = '{made.process_id}'"))
    assert row["exe"] == "nulexe"


def test_block_before_its_announcements(service: Service) -> None:
    """However late they come, and whatever was made into partitions meanwhile."""
    made = MadeProcess(Random(9))
    stream = made.stream("log")
    block = stream.logs(["early"])
    other = made_log_stream(service, 10)
    accept(service, [block_request(block)])
    for step, request in enumerate([stream.request(), made.request()]):
        accept(service, [block_request(other.logs([f"meanwhile {step}"]))])
        wait_until_materialized(service)
        assert messages(service, made.process_id) == []
        assert listed_errors(service)[block["block_id"]]["view_set_name"] is None
        accept(service, [request])
    for _ in range(2):
        assert messages(service, made.process_id) == ["early"]
        assert block["block_id"] not in listed_errors(service)
        wait_until_materialized(service)


def test_clock_that_can_not_be_estimated_at_first(service: Service) -> None:
    """A process of unknown frequency whose first block ends at tick 0: its rows must come once a later block tells."""
    stream = made_log_stream(service, 11, tsc_frequency=0)
    times = {"begin_time": time_text(START_TIME - 1000), "end_time": time_text(START_TIME)}
    accept(service, [block_request(stream.logs(["first"]) | {"begin_ticks": -1000, "end_ticks": 0} | times)])
    wait_until_materialized(service)
    accept(service, [block_request(stream.logs(["second"]))])
    for _ in range(2):
        assert messages(service, stream.process_id) == ["first", "second"]
        wait_until_materialized(service)


def test_absurd_times(service: Service) -> None:
    """Ticks and times at the ends of their ranges give rows at the ends of theirs; neighbours stay where they are."""
    stream = made_log_stream(service, 12)
    extremes = [-(2**63), -1, 0, 2**63 - 1]
    for ticks in extremes:
        accept(service, [block_request(stream.fields(LOG_DEPENDENCIES, log_event(f"at {ticks}", ticks), 1))])
    blocks = [
        stream.logs(["backwards"]) | {"begin_time": time_text(START_TIME + 10**12), "end_time": time_text(START_TIME)},
        stream.logs(["far ticks"]) | {"begin_ticks": -(2**63), "end_ticks": 2**63 - 1},
        stream.logs(["far offset"]) | {"object_offset": -(2**63)},
        stream.logs(["old"]) | {"begin_time": "1700-01-01T00:00:00Z", "end_time": "2261-12-31T23:59:59Z"},
    ]
    accept(service, [block_request(block) for block in blocks])
    expected = Counter([f"at {ticks}" for ticks in extremes] + ["backwards", "far ticks", "far offset", "old"])
    for _ in range(2):
        assert Counter(messages(service, stream.process_id)) == expected
        instance = f"SELECT msg FROM view_instance('log_entries', '{stream.process_id}')"
        assert Counter(service.query(instance)["msg"].to_pylist()) == expected
        wait_until_materialized(service)
    never = [
        stream.logs(["x"]) | {"begin_time": text}
        for text in ("2300-01-01T00:00:00Z", "1600-01-01T00:00:00Z", "yesterday", "2026-01-01T00:00:00", "")
    ]
    refuse(service, [block_request(block) for block in never])


def test_spans_that_do_not_pair_up(service: Service) -> None:
    made = MadeProcess(Random(13))
    streams = {steps: made.stream("cpu") for steps in ("(((", ")))", ")(", "(" * 20_000 + ")" * 20_000, "")}
    accept(service, [made.request(), *(stream.request() for stream in streams.values())])
    for steps, stream in streams.items():
        accept(service, [block_request(stream.spans(steps))])
    for steps, stream in streams.items():
        sql = f"SELECT id, depth, \"begin\", \"end\" FROM view_instance('thread_spans', '{stream.stream_id}')"
        rows = records(service.query(sql, ranged=True))
        spans = {"(((": 3, ")))": 3, ")(": 2, "": -1}.get(steps, 20_000)
        assert len(rows) == spans + 1, steps[:5]
        assert all(row["begin"] <= row["end"] for row in rows)
        assert {row["depth"] for row in rows} == ({0, 1} if steps == ")(" else set(range(len(rows))))


def test_bodies_that_can_never_be_good(service: Service) -> None:
    stream = made_log_stream(service, 15)
    good = stream.logs(["never"])
    broken: list[bytes] = [b"", b"\xff", b"{}", b"\xa0", b"\x80", b"[" * 10_000, b"\x9f" * 100_000, b"\xd8" * 100_000]
    broken += [cbor2.dumps(good)[:cut] for cut in range(0, len(cbor2.dumps(good)), 7)]
    broken += [cbor2.dumps({key: value for key, value in good.items() if key != missing}) for missing in good]
    broken += [cbor2.dumps(list(good.values())), cbor2.dumps([good]), cbor2.dumps("text"), b"\x1f\x8b\x08" + b"x" * 100]
    for ill in ("", "x", "../../etc/passwd", "0" * 31, "0" * 37, 7, None, b"0" * 16):
        broken.append(cbor2.dumps(good | {"block_id": ill}))
    refuse(service, [Request("/ingestion/insert_block", body) for body in broken])
    refuse(service, [Request("/ingestion/insert_stream", body) for body in broken])
    refuse(service, [Request("/ingestion/insert_process", body) for body in broken])
    assert messages(service, stream.process_id) == []


def test_mutations_beside_good_traffic(service: Service) -> None:
    """Hundreds of random changes to real bodies, while a good sender goes on sending."""
    random = Random(16)
    names = [name for name in SCENARIOS if name != "service"]
    originals = [
        request
        for name in names
        for request in recording(name).renamed("mutated").requests
        if len(request.body) < 20_000
    ]
    accept(service, [each for each in originals if not each.path.endswith("block")], 4)
    mutated = [mutation(random.choice(originals), random) for _ in range(400)]
    stream = made_log_stream(service, 17)
    good = [[f"good {number} {position}" for position in range(20)] for number in range(60)]
    bodies = [block_request(stream.logs(texts)) for texts in good]
    sender = threading.Thread(target=accept, args=(service, bodies))
    sender.start()
    statuses = Counter(answer.status for answer in post(service, mutated, 3))
    sender.join()
    assert statuses[200] > 50
    assert statuses[400] > 50
    for _ in range(2):
        assert messages(service, stream.process_id) == [text for texts in good for text in texts]
        for view in ("measures", "blocks", "processes", "streams"):
            service.query(f"SELECT * FROM {view}")
        wait_until_materialized(service)
    for process_id in {process_id for name in names for process_id in recording(name).renamed("mutated").processes}:
        for view in ("log_entries", "measures", "async_events"):
            service.query(f"SELECT * FROM view_instance('{view}', '{process_id}')")
    for stream_id in {stream_id for name in names for stream_id in recording(name).renamed("mutated").streams}:
        service.query(f"SELECT * FROM view_instance('thread_spans', '{stream_id}')", ranged=True)
    listed_errors(service)
    assert service.peak_memory() < MEMORY_LIMIT


def mutation(request: Request, random: Random) -> Request:
    """The request with some bytes changed, cut out, put in or repeated."""
    body = bytearray(request.body)
    for _ in range(random.choice((1, 1, 2, 5, 30))):
        at = random.randrange(len(body) + 1)
        match random.randrange(5):
            case 0:
                body[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                body[at : at + 1] = bytes([body[at % len(body)] ^ (1 << random.randrange(8))]) if body else b""
            case 2:
                del body[at : at + random.randrange(1, 9)]
            case 3:
                body[at:at] = random.randbytes(random.randrange(1, 9))
            case _:
                end = at + random.randrange(1, 60)
                body[at:at] = body[at:end]
    return Request(request.path, bytes(body))


def test_everything_is_still_bounded_and_alive(service: Service) -> None:
    service.assert_running()
    assert service.peak_memory() < MEMORY_LIMIT
    assert "Traceback" not in service.log()
