"""An instrumented program for the tests: threads, tasks and child processes that log, measure and trace what can be
counted afterwards. Prints what it did as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import sys
import threading
import time

import micromegas as mm

THREADS = 3
STEPS = 40
CHILD_LOGS = 7
TASKS = 5
REMOTE_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
REMOTE_SPAN = 0x00F067AA0BA902B7


@mm.trace
def work(step: int) -> int:
    with mm.span("inner"):
        return step if step % 10 == 0 else recursion(3)


@mm.trace(name="deeper")
def recursion(depth: int) -> int:
    return 0 if depth == 0 else 1 + recursion(depth - 1)


def thread_main(name: str, hits: object) -> None:
    duration = mm.metric("duration", "ms", properties={"thread": name})
    weight = mm.metric("weight", "kg", properties={"by": name}, context=True)
    for step in range(STEPS):
        with mm.span("step"):
            mm.log.info("step %d of %s", step, name, thread=name)
            duration.record(step / 2)
            with mm.context(turn=step % 3):
                weight.record_with(step, even=step % 2 == 0)
            hits.add(2)  # type: ignore[attr-defined]
            work(step)
    with mm.span_named(f"last of {name}"):
        automatic(name)


def automatic(name: str) -> str:
    return name


async def task(number: int) -> None:
    with mm.remote_parent(f"00-{REMOTE_TRACE}-{REMOTE_SPAN + number:016x}-01"), mm.span("answer"):
        await asyncio.sleep(0)
        with mm.span_named(f"answer {number}"):
            await asyncio.sleep(0)
    async with mm.span("outer task"):
        await asyncio.sleep(0)
        async with mm.span("inner task"):
            await asyncio.sleep(0)
            mm.log.debug("task %d", number)


async def tasks() -> None:
    mm.monitor_loop(period=0.001)
    await asyncio.gather(*(task(number) for number in range(TASKS)))
    await asyncio.sleep(0.01)


def forked_child(number: int) -> None:
    for step in range(CHILD_LOGS):
        mm.log.warn("forked %d %d", number, step)
    mm.metric("child_measure", "count").record(number)


def spawned_child(number: int) -> None:
    for step in range(CHILD_LOGS):
        mm.log.error("spawned %d %d", number, step)
    with mm.span("spawned work"):
        pass


def main() -> None:
    begin = time.time_ns()
    process_id = mm.init(process_name="instrumented", properties={"build": "test é"}, level="trace")
    for level in ("fatal", "critical", "error", "warn", "warning", "info", "debug", "trace"):
        getattr(mm.log, level)("level %s", level)
    for message, values in (("plain", ()), ("100%", ()), ("é 🚀 \0 \u2028", ()), ("%s %d %r %.2f", ("a", 1, "b", 2.5))):
        mm.log.info(message, *values)
    mm.log.info("long %s", "x" * 100_000)
    sizes = mm.metric("sizes", "bytes")
    for value in (0, 2**63 - 1, -1, 1.5, float("inf"), float("nan")):
        sizes.record(value)
    hits = mm.counter("hits")
    mm.monitor_gc()
    gc.collect()
    asked = threading.Event()
    mm.gauge("depth", "count", lambda: asked.set() or 7, target="gauges")
    asked.wait(10)
    with mm.frame("load", budget_ms=60_000, target="frames"):
        pass
    threads = [
        threading.Thread(target=thread_main, args=(f"worker-{number}", hits), name=f"worker-{number}")
        for number in range(THREADS)
    ]
    mm.trace_modules(include=["__main__"])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mm.untrace_modules()
    asyncio.run(tasks())
    for method, child in (("fork", forked_child), ("spawn", spawned_child)):
        context = multiprocessing.get_context(method)
        children = [context.Process(target=child, args=(number,)) for number in range(2)]
        for each in children:
            each.start()
        for each in children:
            each.join()
            assert each.exitcode == 0
    has_arrived = mm.flush(30.0)
    status = mm.status()
    mm.log.info("the last words")
    json.dump(
        {
            "process_id": process_id,
            "has_arrived": has_arrived,
            "status": status,
            "begin": begin,
            "end": time.time_ns(),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
