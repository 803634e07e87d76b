"""Our transit traffic against the strict reader: every kind of event, hostile ones, threads and forked children."""

from __future__ import annotations

import cbor2
import lz4.frame
import pytest
from record import strict_reader

PROGRAM = r"""
import asyncio, math, multiprocessing, os, threading, warnings

class Hostile:
    def __str__(self): raise RuntimeError("no")
    __repr__ = __str__
class Liar(str):
    def __str__(self): return "liar"

ints = mm.metric("ints", "count"); floats = mm.metric("floats", "ms", properties={"scene": "menu", "é": "ü"})
tagged_ints = mm.metric("tagged", "bytes", properties={"a": 1})
hits = mm.counter("hits"); seconds = mm.counter("seconds", "s")

@mm.trace
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@mm.trace
def items(n):
    for i in range(n): yield i
@mm.trace
async def leaf(i):
    await asyncio.sleep(0)
    async with mm.span("inner"): await asyncio.sleep(0)
    return i
@mm.trace
async def tree():
    async with asyncio.TaskGroup() as group:
        for i in range(5): group.create_task(leaf(i))

def everything(who):
    mm.log.info("literal"); mm.log.info(""); mm.log.fatal("%s", who)
    mm.log.error("x %d %s %r %.3f %%", 1, "two", "three", 4.0)
    mm.log.warn("props", user="ann", level="nonsense", target="t", name="\0", n=3, empty="")
    mm.log.info("reserved", **{"micromegas.audience": "x", "": "unnamed", "nul\0": "a\0b", "long" * 100: "x" * 1000})
    mm.log.info("levels", level="info"); mm.log.debug("same", user="ann"); mm.log.trace("same", user="ann")
    mm.log.info("too few %s %s", 1); mm.log.info("too many", 1, 2); mm.log.info("%d", "no number")
    mm.log.info("%y %", 1)
    mm.log.info("%s %s", Hostile(), Liar("x")); mm.log.info(Hostile()); mm.log.info(None); mm.log.info(b"\xff")
    mm.log.info("surrogate \udcff %s", "\ud800"); mm.log.info("nul \0 %s", "\0"); mm.log.info("huge %s", "x" * 300_000)
    mm.log.info("%s", 2**200); mm.log.info("%d %d", -(2**63), 2**64)
    for i in range(300): mm.log.info(f"made at run time {i}")
    for value in (0, 1, -1, 2**63 - 1, 2**64 - 1, -(2**63), 2**200, True): ints.record(value); tagged_ints.record(value)
    for value in (0.0, -0.0, 1e308, math.inf, -math.inf, math.nan, 5e-324): floats.record(value); ints.record(value)
    for value in ("x", None, Hostile(), 1j): 
        floats.record(value)
    for _ in range(1000): hits.add(1)
    seconds.add(0.5)
    fib(8); list(items(3)); asyncio.run(tree())
    for i in range(50):
        with mm.span_named(f"named {who} {i} \0 \udcff"): pass
    with mm.span(""): pass
    try:
        with mm.span("raises"): raise KeyError
    except KeyError: pass
    next(items(5))
    async def named():
        async with mm.span_named("async named"): await asyncio.sleep(0)
    asyncio.run(named())

mm.init(flush_period=0.02, level="trace")
everything("main")
names = ["t\0\udcff" + "n" * 400, "", "", "micromegas."]
threads = [threading.Thread(target=everything, args=(f"thread {i}",), name=name) for i, name in enumerate(names)]
for thread in threads: thread.start()
child = os.fork()
if child == 0:
    everything("child")
    os._exit(0 if mm.flush(30) else 1)
for thread in threads: thread.join()
_, status = os.waitpid(child, 0)
mm.flush(30)
everything("after")
print(status, mm.flush(30), mm.status()["lost_events"])
"""


def requests_of(server) -> list[tuple[str, bytes]]:
    return [(request.route, request.body) for request in server.captured.requests if request.status == 200]


def test_everything_that_is_recorded_obeys_the_recipe(run, server):
    done = run(PROGRAM)
    assert done.stdout == "0 True 0\n", done.stderr
    found = strict_reader.read(requests_of(server))
    assert len(found.processes) == 2
    assert {stream.tag for stream in found.streams.values()} == {"log", "metrics", "cpu"}
    child = next(process for process in found.processes.values() if process["parent_process_id"] in found.processes)
    assert any(stream.process is child and stream.tag == "cpu" for stream in found.streams.values())
    seen = {event.name for stream in found.streams.values() for event in stream.events}
    promised = {name for kinds in strict_reader.EVENTS.values() for name in kinds} | set(strict_reader.TEXT_EVENTS)
    assert seen == promised
    assert any(len(stream.blocks) > 1 for stream in found.of("log"))


def test_an_event_without_room_leaves_holes_only(run, server):
    """Blocks that are dropped leave gaps in the offsets; all that arrives still obeys."""
    server.answer = lambda route, number: 503 if number < 3 else 200
    run(
        """
        import random
        mm.init(flush_period=0.01, queue_bytes=30_000)
        for i in range(300):
            mm.log.info("%d %s", i, random.randbytes(200).hex())
            with mm.span("s"): pass
            if i % 10 == 0: mm.flush(0.01)
        for _ in range(100):
            if mm.flush(10): break
        """
    )
    strict_reader.read(requests_of(server), lossless=False)


# ---- the reader itself: each change of good traffic is found


@pytest.fixture
def traffic(run, server) -> list[tuple[str, bytes]]:
    run(
        """
        mm.init(flush_period=30)
        mm.log.info("literal"); mm.log.info("x %d", 1, user="ann")
        assert mm.flush()
        mm.log.info("y %d", 2)
        assert mm.flush()
        """
    )
    return requests_of(server)


def payload(part: str, change):
    def apply(request):
        buffer = lz4.frame.decompress(request["payload"][part])
        request["payload"][part] = lz4.frame.compress(change(buffer))

    return apply


def moved(key: str, by: int):
    def apply(request):
        request[key] += by

    return apply


def replaced(key: str, value):
    def apply(request):
        request[key] = value

    return apply


CHANGES = {
    "missing key": ("insert_process", lambda request: request.pop("realname")),
    "further key": ("insert_stream", replaced("format", "micromegas-transit")),
    "upper-case id": ("insert_process", lambda request: request.update(process_id=request["process_id"].upper())),
    "long text": ("insert_process", replaced("computer", "x" * 256)),
    "nul": ("insert_process", replaced("computer", "a\0")),
    "reserved property": ("insert_process", lambda request: request["properties"].update({"micromegas.a": "b"})),
    "frequency": ("insert_process", replaced("tsc_frequency", 0)),
    "no tag": ("insert_stream", replaced("tags", [])),
    "another type": ("insert_stream", lambda request: request["objects_metadata"][0].update(name="X")),
    "another size": ("insert_stream", lambda request: request["objects_metadata"][0].update(size=17)),
    "another member": (
        "insert_stream",
        lambda request: request["dependencies_metadata"][1]["members"][1].update(name="format"),
    ),
    "a number of another type": (
        "insert_stream",
        lambda request: request["objects_metadata"][0]["members"][1].update(type_name="usize"),
    ),
    "count": ("insert_block", moved("nb_objects", 1)),
    "offset": ("insert_block", moved("object_offset", 1)),
    "ticks beside time": ("insert_block", moved("end_ticks", 1)),
    "range": (
        "insert_block",
        lambda request: request.update(end_ticks=request["begin_ticks"], end_time=request["begin_time"]),
    ),
    "frame after frame": (
        "insert_block",
        lambda request: request["payload"].update(objects=request["payload"]["objects"] * 2),
    ),
    "no frame": ("insert_block", lambda request: request["payload"].update(dependencies=b"")),
    "half a frame": (
        "insert_block",
        lambda request: request["payload"].update(objects=request["payload"]["objects"][:-8]),
    ),
    "half a record": ("insert_block", payload("objects", lambda buffer: buffer[:-1])),
    "a byte too many": ("insert_block", payload("objects", lambda buffer: buffer + b"\0")),
    "an unknown type": ("insert_block", payload("objects", lambda buffer: b"\x09" + buffer[1:])),
    "an unused dependency": (
        "insert_block",
        payload("dependencies", lambda buffer: buffer + b"\0\x09\0\0\0" + (99).to_bytes(8, "little") + b"x"),
    ),
    "ids from two": ("insert_block", payload("dependencies", lambda buffer: buffer[:5] + b"\x02" + buffer[6:])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_reader_finds(traffic, change):
    strict_reader.read(traffic)
    route, apply = CHANGES[change]
    changed = list(traffic)
    index = next(index for index, (other, _) in enumerate(traffic) if other == route)
    request = cbor2.loads(traffic[index][1])
    apply(request)
    changed[index] = (route, cbor2.dumps(request))
    with pytest.raises((strict_reader.Violation, RuntimeError)):
        strict_reader.read(changed)


def test_the_reader_finds_a_wrong_order_and_repetitions(traffic):
    routes = [route for route, _ in traffic]
    assert routes == ["insert_process", "insert_stream", "insert_block", "insert_block"]
    process, stream, first, second = traffic
    for wrong in (
        [stream, process, first, second],
        [process, first, stream, second],
        [*traffic, second],
        [*traffic, stream],
        [process, stream, second],
        [process, stream],
        [(process[0], process[1] + b"\0"), stream, first, second],
    ):
        with pytest.raises((strict_reader.Violation, cbor2.CBORDecodeError)):
            strict_reader.read(wrong)
