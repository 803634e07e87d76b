"""A program for the tests that uses every feature of the recorder, each in a way that can be told afterwards.

Prints what only it can know as JSON, then ends by an exception that nobody catches. Called with `child`, it is one of
its own child processes. What it must have left in SQL is said by `test_recorder_everything.py`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator

import micromegas as mm

LEVELS = {"fatal": 1, "critical": 1, "error": 2, "warn": 3, "warning": 3, "info": 4, "debug": 5, "trace": 6}
STANDARD_LEVELS = {5: 6, 10: 5, 15: 5, 20: 4, 30: 3, 40: 2, 50: 1, 60: 1}
MESSAGES: list[tuple[str, tuple[object, ...]]] = [
    ("a literal", ()),
    ("100% of it", ()),
    ("é 🚀 \0 \u2028", ()),
    ("%s is %d, %r and %.2f", ("a", 1, "b", 2.5)),
    ("%5d|%-5s|%05.1f|%x|%+e", (7, "ab", 2.25, 255, 12345.678)),
    ("%s %s %s %s", (True, None, 2**70, -(2**63))),
    ("%s %s %s", (float("inf"), -0.0, 0.1)),
    ("%r of %s", (b"\x00\xff", [1, "two", {3: 4.0}])),
    ("%(who)s has %(what)s", ({"who": "ann", "what": "won"},)),
    ("long %s", ("x" * 100_000,)),
]
VALUES = (0, 1, 2**53, 2**63 - 1, -1, -2.5, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"))
TWINS, STEPS, TASKS = 2, 25, 4
REMOTE_TRACE, REMOTE_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", 0x00F067AA0BA902B7
CHILDREN = ("forked", "started")
PASSWORD = "hunter2"


# ---- log events


def log_levels() -> None:
    log = mm.logger("everything.levels")
    for name in LEVELS:
        getattr(log, name)("level %s", name)
    quiet = mm.logger("everything.quiet")
    mm.set_log_level("warn", "everything.quiet")
    quiet.info("below the level of its target")
    quiet.warn("at the level of its target")


def log_messages() -> None:
    log = mm.logger("everything.messages")
    for template, values in MESSAGES:
        log.info(template, *values)
    log.info("two %s %s", 1)  # noqa: PLE1206
    log.info("login of %s with password=%s", "ann", PASSWORD, password=PASSWORD)


def log_properties() -> None:
    log = mm.logger("everything.properties")
    shared = mm.properties(region="eu", tier="gold")
    log.info("own", user="ann", number=3, flag=True, nothing=None, text="é\0")
    log.info("set", properties=shared)
    log.info("set and own", properties=shared, user="ann")
    with mm.context(request="r-1", user="bob"):
        log.info("context")
        with mm.context(request="r-2"):
            log.info("inner context, own wins", user="carl")
        log.info("context again")
    mm.bind(session="s-1")
    log.info("bound")
    mm.unbind("session")
    log.info("unbound")
    mm.set_global_properties(build="42")
    log.info("global")
    mm.set_global_properties()
    log.info("not global")


def log_exceptions() -> None:
    log = mm.logger("everything.exceptions")
    try:
        try:
            {}["lost"]
        except KeyError as error:
            raise ValueError("bad é") from error
    except ValueError as error:
        log.exception("while %s", "looking", attempt=1)
        log.warn("given", exc_info=error)
    log.exception("nothing is handled")


def log_through_the_standard_library() -> None:
    logger = logging.getLogger("everything.stdlib")
    logger.setLevel(1)
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    for number in STANDARD_LEVELS:
        logger.log(number, "number %d", number)
    logger.info("extra", extra={"customer": "ann", "count": 2})
    try:
        raise OSError("no disk")
    except OSError:
        logger.exception("caught")
    rebound = mm.rebind_logger("everything.rebound")
    rebound.setLevel(logging.INFO)
    rebound.debug("below the level")
    rebound.info("fast %d", 1)
    mm.restore_logger(rebound)
    rebound.propagate = False
    rebound.info("slow %d", 2)


@mm.log_calls(level="debug")
def checkout() -> int:
    return 1


class Noisy:
    def __del__(self) -> None:
        raise RuntimeError("in a destructor")


def log_what_nobody_wrote() -> None:
    mm.capture_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old api", FutureWarning, stacklevel=1)
    checkout()
    Noisy()

    def fail() -> None:
        raise LookupError("in a thread")

    thread = threading.Thread(target=fail, name="failing")
    thread.start()
    thread.join()

    async def forgets() -> None:
        async def fails() -> None:
            raise LookupError("in a task")

        task = asyncio.create_task(fails(), name="forgotten")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(forgets())


# ---- measures


def measure() -> None:
    values = mm.metric("values", "bytes", properties={"kind": "all", "a": "é"}, target="everything.measures")
    for value in VALUES:
        values.record(value)
    values.record("no number")  # type: ignore[arg-type]
    plain = mm.metric("plain")
    for number in range(STEPS):
        plain.record(number)
    for number in range(STEPS):
        mm.metric("declared again", "s", target="everything.measures").record(number / 8)
    single = mm.metric("single", "ms", properties={"kind": "s"}, target="everything.measures")
    single.record(1)
    single.record_with(2.5, user="ann", kind="own")
    single.record_with(3, properties=mm.properties(region="eu"), name="taken")
    told = mm.metric("told", target="everything.measures", context=True)
    with mm.context(request="r-1"):
        told.record(1)
        told.record_with(2, request="r-2", user="bob")
    told.record(3)
    hits = mm.counter("hits", target="everything.measures")
    paid = mm.counter("paid", "euro", properties={"till": "1"}, target="everything.measures")
    threads = [threading.Thread(target=count, args=(hits, paid)) for _ in range(TWINS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = threading.Event()
    depth = mm.gauge("depth", "count", lambda: asked.set() or 7, target="everything.measures")
    asked.wait(30)
    depth.close()
    failed = threading.Event()

    def fail() -> float:
        failed.set()
        raise OSError("no sensor")

    broken = mm.gauge("broken", "count", fail, target="everything.measures")
    failed.wait(30)
    broken.close()
    while broken.errors == 0:
        time.sleep(0.001)
    for _ in range(3):
        with mm.frame("slow", budget_ms=1e-6, target="everything.frames"):
            time.sleep(0.001)
    monitor = mm.monitor_gc()
    gc.collect(0)
    gc.collect(2)
    monitor.close()


def count(hits: object, paid: object) -> None:
    for _ in range(1000):
        hits.add(2)  # type: ignore[attr-defined]
        paid.add(0.5)  # type: ignore[attr-defined]


# ---- spans of threads


@mm.trace
def plain(depth: int) -> int:
    return 0 if depth == 0 else plain(depth - 1)


@mm.trace(name="called otherwise")
def named() -> None:
    pass


class Shop:
    @mm.trace
    def method(self) -> None:
        pass

    @mm.trace
    @classmethod
    def of_class(cls) -> None:
        pass

    @mm.trace
    @staticmethod
    def static() -> None:
        pass

    @mm.trace
    @property
    def till(self) -> int:
        return 1


@mm.trace
def raises() -> None:
    raise ValueError("through a span")


def automatic() -> None:
    inside_automatic()


def inside_automatic() -> None:
    pass


def twin(number: int) -> None:
    for step in range(STEPS):
        with mm.span("outer"), mm.span_named(f"step {step} of {number}"):
            plain(2)
    shop = Shop()
    shop.method()
    shop.of_class()
    shop.static()
    assert shop.till == 1
    named()
    try:
        with mm.span("left by an exception"):
            raises()
    except ValueError:
        pass
    by_hand = mm.span("by hand")
    by_hand.begin()
    by_hand.end()
    automatic()  # not traced: nobody asked yet


def trace_threads() -> None:
    threads = [threading.Thread(target=twin, args=(number,), name=f"twin-{number}") for number in range(TWINS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    mm.trace_modules(include=["__main__"])
    thread = threading.Thread(target=automatic, name="automatic")
    thread.start()
    thread.join()
    mm.untrace_modules()


# ---- async spans


@mm.trace
def generator() -> Iterator[int]:
    yield 1
    yield 2


@mm.trace
async def coroutine(number: int) -> int:
    await asyncio.sleep(0)
    with mm.span("inside a coroutine"):
        await asyncio.sleep(0)
    return number


@mm.trace
async def async_generator() -> AsyncIterator[int]:
    for number in range(10):
        yield number
        await asyncio.sleep(0)


async def traced_task(number: int) -> None:
    with mm.span_named(f"in task {number}"):
        await coroutine(number)


async def trace_tasks() -> str | None:
    assert mm.traceparent() is None
    assert list(generator()) == [1, 2]
    async with mm.span("gathering"):
        header = mm.traceparent()
        await asyncio.gather(*(coroutine(number) for number in range(TASKS)))
    half_read = async_generator()
    async for number in half_read:
        if number == 1:
            break
    await half_read.aclose()  # type: ignore[attr-defined]
    with mm.remote_parent(f"00-{REMOTE_TRACE}-{REMOTE_SPAN:016x}-01"), mm.span("answer"):
        await asyncio.sleep(0)
    try:
        async with mm.span("left by an exception"):
            raise ValueError("through a span")
    except ValueError:
        pass
    loop_monitor = mm.monitor_loop(period=0.001)
    await asyncio.sleep(0.02)
    loop_monitor.close()
    mm.trace_tasks()
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(traced_task(number))
    return header


# ---- processes


def be_child(kind: str) -> None:
    mm.log.info("a child that was %s", kind)
    mm.metric("child_measure", "count").record(CHILDREN.index(kind))
    with mm.span("child span"):
        pass


def beget() -> None:
    child = os.fork()
    if child == 0:
        be_child("forked")
        assert mm.flush(30)
        mm.shutdown()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    subprocess.run([sys.executable, __file__, "child"], check=True)


def main() -> None:
    if sys.argv[1:] == ["child"]:
        mm.init(process_name="child", level="trace")
        be_child("started")
        return
    begin = time.time_ns()
    process_id = mm.init(process_name="everything", properties={"stage": "test é"}, level="trace", gauge_period=0.01)
    log_levels()
    log_messages()
    log_properties()
    log_exceptions()
    log_through_the_standard_library()
    log_what_nobody_wrote()
    measure()
    trace_threads()
    header = asyncio.run(trace_tasks())
    beget()
    has_arrived = mm.flush(30.0)
    json.dump(
        {
            "process_id": process_id,
            "has_arrived": has_arrived,
            "status": mm.status(),
            "traceparent": header,
            "begin": begin,
            "end": time.time_ns(),
        },
        sys.stdout,
    )
    sys.stdout.flush()
    raise RuntimeError("the end")


if __name__ == "__main__":
    main()
