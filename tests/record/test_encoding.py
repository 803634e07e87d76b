"""Servers get the encoding that they can read, and the same events in both."""

from __future__ import annotations

import math

import cbor2
import pytest

from micromegas import _core

COLUMNS = "micromegas-columns/1"
PROGRAM = """
    mm.init({settings})
    mm.log.info("plain")
    mm.log.info("100%")
    for n in range(300):
        mm.log.info("%s is %d of %.2f, %r %-5s|%05x", f"name{{n % 7}}", n, n / 3, None, True, n)
    mm.log.error("é 🚀 \\0 %s", "\\udc80", user="ada", level="strange")
    mm.log.info(f"made {{1 + 1}}")
    mm.log.warn("%1000d" * 32, *range(32))
    mm.log.warn("long %s", "x" * 10_000)
    mm.log.warn("no values, but properties: %d", k=1)
    sizes = mm.metric("sizes", "bytes")
    for value in (0, -1, 2**63 - 1, 1.5, -0.0, float("inf"), float("nan"), 0.1 + 0.2):
        sizes.record(value)
    mm.metric("tagged", "ms", properties={{"a": "b"}}).record(3.25)
    with mm.span("outer"), mm.span("inner"):
        pass
    assert mm.shutdown()
"""


def reads(formats):
    return lambda route, headers, body: (200, {"micromegas-stream-formats": formats} if "process" in route else {})


def formats(server):
    bodies = [cbor2.loads(body) for body in server.captured.accepted("insert_stream")]
    return {body.get("format") for body in bodies}


def events(server, tag):
    def comparable(value):
        if isinstance(value, dict):
            return {key: comparable(each) for key, each in value.items() if key not in ("time", "id")}
        if isinstance(value, list):
            return [comparable(each) for each in value]
        return ("float", math.copysign(1, value), repr(value)) if isinstance(value, float) else value

    return [comparable(event) for event in server.captured.events(tag)]


@pytest.mark.parametrize(
    ("header", "settings", "expected"),
    [
        (None, "", None),
        ("micromegas-transit", "", None),
        ("micromegas-transit, micromegas-columns/2", "", None),
        (f"micromegas-transit, {COLUMNS}", "", COLUMNS),
        (COLUMNS, "", COLUMNS),
        (f"micromegas-transit, {COLUMNS}", "encoding='transit'", None),
        (None, "encoding='columns'", COLUMNS),
    ],
)
def test_the_server_chooses(server, run, header, settings, expected):
    if header is not None:
        server.answer_request = reads(header)
    run(PROGRAM.format(settings=settings))
    assert formats(server) == {expected}
    for body in server.captured.accepted("insert_stream"):
        types = [each["name"] for each in cbor2.loads(body)["objects_metadata"]]
        assert expected == COLUMNS or "LogTemplateEvent" not in types
    for body in server.captured.accepted("insert_block"):
        payload = cbor2.loads(body)["payload"]
        magic = (b"", b"\xc1") if expected == COLUMNS else (b"\x04\x22\x4d\x18", b"\x04\x22\x4d\x18")
        assert payload["dependencies"].startswith(magic[0])
        assert payload["objects"].startswith(magic[1])
    messages = server.captured.messages()
    assert messages[:3] == ["plain", "100%", "name0 is 0 of 0.00, None True |00000"]
    assert messages[4] == "name2 is 2 of 0.67, None True |00002"
    assert messages[302] == "é 🚀 \0 \\udc80"
    assert messages[303] == "made 2"
    assert messages[304] == "%1000d" * 32 % tuple(range(32))
    assert messages[305] == "long " + "x" * 10_000
    assert messages[306] == "no values, but properties: %d"
    assert len(messages) == 307


def test_both_encodings_tell_the_same(server, run):
    run(PROGRAM.format(settings="encoding='transit'"))
    transit = [events(server, tag) for tag in ("log", "metrics", "cpu")]
    server.requests.clear()
    run(PROGRAM.format(settings="encoding='columns'"))
    assert [events(server, tag) for tag in ("log", "metrics", "cpu")] == transit


@pytest.mark.parametrize("encoding", ["transit", "columns"])
def test_status_tells_the_bytes_that_were_sent(server, run, encoding):
    """Blocks wait in columns; what they were sent as has another length."""
    told = run(f"""
        mm.init(encoding="{encoding}")
        for n in range(5000):
            mm.log.info("%s has %d", f"user {{n}}", n)
        assert mm.flush(30)
        print(mm.status()["sent_requests"], mm.status()["sent_bytes"])
    """)
    requests, sent = map(int, told.stdout.split())
    assert sent == sum(len(request.body) for request in server.captured.requests[:requests])


def test_blocks_that_many_long_messages_would_overfill(server, run):
    """What is few bytes in columns must be no more than a reader takes."""
    run("""
        mm.init(encoding="columns", flush_period=60)
        template = "%1000d" * 32
        for n in range(2500):
            mm.log.info(template, *range(32))
        assert mm.shutdown()
    """)
    blocks = [block for block in server.captured.blocks if block.tag == "log"]
    assert len(blocks) >= 3
    assert sum(len(block.events) for block in blocks) == 2500
    assert max(sum(len(event["msg"]) for event in block.events) for block in blocks) < 40 << 20
    assert sum(len(block.payload) for block in blocks) < 10_000


def test_a_stream_is_announced_in_one_way_only(server, run):
    """A server that says something else later is not believed: what was said of the process counts."""
    answers = iter([(200, {"micromegas-stream-formats": COLUMNS})])
    server.answer_request = lambda route, headers, body: next(answers, 200) if route == "insert_process" else 200
    run("""
        import time
        mm.init(flush_period=0.05)
        for n in range(10):
            mm.log.info("n %d", n)
            mm.flush()
        assert mm.shutdown()
    """)
    assert formats(server) == {COLUMNS}
    assert server.captured.messages() == [f"n {n}" for n in range(10)]


def test_unknown_encodings_are_refused(run):
    assert "neither auto nor transit nor columns" in run("mm.init(encoding='json')", returncode=1).stderr
    assert _core.STREAM_FORMATS == ("micromegas-transit", COLUMNS)
