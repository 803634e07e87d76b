"""Async spans: ids, parents, depth and balance over every way in which coroutines, generators and tasks end."""

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from record.conftest import CaptureServer
from record.test_spans import async_spans, family, tree

HELPERS = """
import asyncio, contextlib, contextvars, gc, sys, threading
import micromegas as mm
process_ids = []

def run(main):
    async def root():
        async with mm.span("root"): await main()
    asyncio.run(root())
    mm.shutdown(30)

@mm.trace
async def leaf():
    await asyncio.sleep(0)

@mm.trace
async def ticks(n=3):
    for i in range(n):
        await leaf()
        yield i

async def spanned_ticks(n=3):
    async with mm.span("inner"):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

async def with_ticks(n=3):
    with mm.span("inner"):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

@mm.trace
def numbers(n=3):
    for i in range(n):
        yield i

class Boom(Exception): pass
"""

# name -> (body of main(), the family that must come of it)
CASES = {
    "coroutine": ("await leaf()", {("leaf", "root", 1)}),
    "coroutine raises": (
        """
        @mm.trace(name="fails")
        async def fails():
            await asyncio.sleep(0); raise Boom
        with contextlib.suppress(Boom): await fails()
        """,
        {("fails", "root", 1)},
    ),
    "coroutine cancelled": (
        """
        @mm.trace(name="waits")
        async def waits(): await asyncio.sleep(100)
        task = asyncio.create_task(waits()); await asyncio.sleep(0); task.cancel()
        with contextlib.suppress(asyncio.CancelledError): await task
        """,
        {("waits", "root", 1)},
    ),
    "coroutine cancelled before its start": (
        """
        task = asyncio.create_task(leaf()); task.cancel()
        with contextlib.suppress(asyncio.CancelledError): await task
        """,
        set(),
    ),
    "coroutine closed": (
        """
        coroutine = leaf(); coroutine.send(None); coroutine.close()
        """,
        {("leaf", "root", 1)},
    ),
    "coroutine never awaited": ("leaf().close()", set()),
    "coroutine dropped": (
        """
        coroutine = leaf(); coroutine.send(None); del coroutine; gc.collect()
        """,
        {("leaf", "root", 1)},
    ),
    "coroutine throws": (
        """
        coroutine = leaf(); coroutine.send(None)
        with contextlib.suppress(Boom): coroutine.throw(Boom())
        """,
        {("leaf", "root", 1)},
    ),
    "nested coroutines": (
        """
        @mm.trace(name="middle")
        async def middle(): await leaf(); await leaf()
        await middle()
        """,
        {("middle", "root", 1), ("leaf", "middle", 2)},
    ),
    "recursive coroutine": (
        """
        @mm.trace(name="recursive")
        async def recursive(n):
            await asyncio.sleep(0)
            if n: await recursive(n - 1)
        await recursive(3)
        """,
        {("recursive", "root", 1)} | {("recursive", "recursive", depth) for depth in (2, 3, 4)},
    ),
    "generator": ("assert list(numbers()) == [0, 1, 2]", {("numbers", "root", 1)}),
    "generator broken off": (
        """
        for i in numbers(): break
        gc.collect()
        """,
        {("numbers", "root", 1)},
    ),
    "generator throws": (
        """
        generator = numbers(); next(generator)
        with contextlib.suppress(Boom): generator.throw(Boom())
        """,
        {("numbers", "root", 1)},
    ),
    "generator closed in another task": (
        """
        generator = numbers(); next(generator)
        async def closes(): generator.close()
        await asyncio.create_task(closes())
        await leaf()
        """,
        {("numbers", "root", 1), ("leaf", "root", 1)},
    ),
    "generator rests": (
        """
        generator = numbers(); next(generator); await leaf(); generator.close()
        """,
        {("numbers", "root", 1), ("leaf", "root", 1)},
    ),
    "async generator": (
        "assert [i async for i in ticks()] == [0, 1, 2]",
        {("ticks", "root", 1), ("leaf", "ticks", 2)},
    ),
    "async generator broken off": (
        """
        async for i in ticks(): break
        gc.collect()
        await asyncio.sleep(0.01)
        """,
        {("ticks", "root", 1), ("leaf", "ticks", 2)},
    ),
    "async generator athrow": (
        """
        generator = ticks(); await anext(generator)
        with contextlib.suppress(Boom): await generator.athrow(Boom())
        """,
        {("ticks", "root", 1), ("leaf", "ticks", 2)},
    ),
    "async generator asend": (
        """
        @mm.trace(name="echo")
        async def echo():
            got = yield 0
            while True: got = yield got
        generator = echo(); await generator.asend(None)
        assert await generator.asend(5) == 5 and await generator.asend(6) == 6
        await generator.aclose()
        """,
        {("echo", "root", 1)},
    ),
    "async generator closed in another task": (
        """
        generator = ticks(); await anext(generator)
        await asyncio.create_task(generator.aclose())
        await leaf()
        """,
        {("ticks", "root", 1), ("leaf", "ticks", 2), ("leaf", "root", 1)},
    ),
    "async generator driven by several tasks": (
        """
        generator = ticks(4)
        async def one(): return await anext(generator)
        for i in range(4): assert await asyncio.create_task(one()) == i
        await generator.aclose()
        """,
        {("ticks", "root", 1), ("leaf", "ticks", 2)},
    ),
    "async with in a generator closed in another task, inside async with": (
        """
        async with mm.span("enclosing"):
            generator = spanned_ticks(); await anext(generator)
            await asyncio.create_task(generator.aclose())
        await leaf()
        """,
        {("enclosing", "root", 1), ("inner", "enclosing", 2), ("leaf", "root", 1)},
    ),
    "async with in a generator ended by the loop": (
        """
        async with mm.span("enclosing"):
            async for i in spanned_ticks(): break
            gc.collect()
            await asyncio.sleep(0.01)
        await leaf()
        """,
        {("enclosing", "root", 1), ("inner", "enclosing", 2), ("leaf", "root", 1)},
    ),
    "with in a generator closed in another task, inside with": (
        """
        with mm.span("enclosing"):
            generator = with_ticks(); await anext(generator)
            await asyncio.create_task(generator.aclose())
            await leaf()
        await leaf()
        """,
        {("enclosing", "root", 1), ("inner", "enclosing", 2), ("leaf", "enclosing", 2), ("leaf", "root", 1)},
    ),
    "with around an await, interleaved tasks": (
        """
        async def work(n):
            with mm.span("outer"):
                await asyncio.sleep(0.001 * n)
                with mm.span("inner"):
                    await asyncio.sleep(0.001)
        await asyncio.gather(*(work(n % 3) for n in range(9)))
        """,
        {("outer", "root", 1), ("inner", "outer", 2)},
    ),
    "with raises": (
        """
        with contextlib.suppress(Boom):
            with mm.span("outer"):
                with mm.span("inner"):
                    await asyncio.sleep(0)
                    raise Boom
        with mm.span("after"): pass
        """,
        {("outer", "root", 1), ("inner", "outer", 2), ("after", "root", 1)},
    ),
    "with cancelled": (
        """
        async def waits():
            with mm.span("waits"): await asyncio.sleep(100)
        task = asyncio.create_task(waits()); await asyncio.sleep(0); task.cancel()
        with contextlib.suppress(asyncio.CancelledError): await task
        """,
        {("waits", "root", 1)},
    ),
    "with holds a gather": (
        """
        with mm.span("fetch all"):
            await asyncio.gather(leaf(), leaf())
        """,
        {("fetch all", "root", 1), ("leaf", "fetch all", 2)},
    ),
    "with, async with, with": (
        """
        with mm.span("a"):
            async with mm.span("b"):
                with mm.span("c"):
                    await leaf()
                await leaf()
            await leaf()
        """,
        {("a", "root", 1), ("b", "a", 2), ("c", "b", 3), ("leaf", "c", 4), ("leaf", "b", 3), ("leaf", "a", 2)},
    ),
    "the same span in itself": (
        """
        span = mm.span("same")
        with span:
            with span:
                async with span:
                    await asyncio.sleep(0)
        """,
        {("same", "root", 1), ("same", "same", 2), ("same", "same", 3)},
    ),
    "tasks that share a context": (
        """
        async def work(n):
            with mm.span("shared"):
                await asyncio.sleep(0.001 * n)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.create_task(work(n), context=context) for n in (3, 1, 2)))
        """,
        {("shared", "root", 1), ("shared", "shared", 2), ("shared", "shared", 3)},
    ),
    "task group": (
        """
        async with mm.span("group"):
            async with asyncio.TaskGroup() as group:
                for _ in range(3): group.create_task(leaf())
        """,
        {("group", "root", 1), ("leaf", "group", 2)},
    ),
    "task group that fails": (
        """
        @mm.trace(name="fails")
        async def fails(): raise Boom
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(leaf()); group.create_task(fails())
        except* Boom: pass
        """,
        {("leaf", "root", 1), ("fails", "root", 1)},
    ),
    "gather": ("await asyncio.gather(leaf(), leaf(), leaf())", {("leaf", "root", 1)}),
    "task created before a span, run inside it": (
        """
        task = asyncio.create_task(leaf())
        async with mm.span("later"): await task
        """,
        {("leaf", "root", 1), ("later", "root", 1)},
    ),
    "task created in a span, run after it": (
        """
        async with mm.span("creator"): task = asyncio.create_task(leaf())
        await task
        """,
        {("creator", "root", 1), ("leaf", "creator", 2)},
    ),
    "wait_for with a time-out": (
        """
        @mm.trace(name="slow")
        async def slow():
            with mm.span("sleep"): await asyncio.sleep(100)
        with contextlib.suppress(TimeoutError): await asyncio.wait_for(slow(), 0.01)
        """,
        {("slow", "root", 1), ("sleep", "slow", 2)},
    ),
    "to_thread": (
        """
        def work():
            with mm.span("in thread"): pass
            mm.span("opened").open_async().close()
        await asyncio.to_thread(work)
        """,
        {("opened", "root", 1)},
    ),
    "run_in_executor": (
        """
        def work(): mm.span("opened").open_async().close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, work)
        await loop.run_in_executor(None, contextvars.copy_context().run, work)
        """,
        {("opened", None, 0), ("opened", "root", 1)},
    ),
    "copied context": (
        """
        context = contextvars.copy_context()
        async with mm.span("not in the copy"):
            context.run(lambda: mm.span("opened").open_async().close())
        """,
        {("not in the copy", "root", 1), ("opened", "root", 1)},
    ),
    "thread with a loop of its own": (
        """
        thread = threading.Thread(target=lambda: asyncio.run(leaf()))
        thread.start()
        await asyncio.to_thread(thread.join)
        """,
        {("leaf", None, 0)},
    ),
    "callbacks": (
        """
        done = asyncio.Event()
        def callback():
            mm.span("called back").open_async().close(); done.set()
        async with mm.span("schedules"): asyncio.get_running_loop().call_soon(callback)
        await done.wait()
        """,
        {("schedules", "root", 1), ("called back", "schedules", 2)},
    ),
    "async exit stack": (
        """
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(mm.span("first"))
            await stack.enter_async_context(mm.span("second"))
            await leaf()
        await leaf()
        """,
        {("first", "root", 1), ("second", "first", 2), ("leaf", "second", 3), ("leaf", "root", 1)},
    ),
    "exit stack around an await": (
        """
        async def work(n):
            with contextlib.ExitStack() as stack:
                stack.enter_context(mm.span("stacked"))
                await asyncio.sleep(0.001 * n)
        await asyncio.gather(work(2), work(1), work(3))
        """,
        {("stacked", "root", 1)},
    ),
    "context manager around an await": (
        """
        @contextlib.contextmanager
        def section():
            with mm.span("section"): yield
        async def work(n):
            with section(): await asyncio.sleep(0.001 * n)
        await asyncio.gather(work(2), work(1), work(3))
        """,
        {("section", "root", 1)},
    ),
    "async context manager": (
        """
        @contextlib.asynccontextmanager
        async def section():
            async with mm.span("section"): yield
        async with section(): await leaf()
        await leaf()
        """,
        {("section", "root", 1), ("leaf", "section", 2), ("leaf", "root", 1)},
    ),
    "methods of every kind": (
        """
        class Thing:
            @mm.trace(name="m")
            async def method(self): await leaf()
            @classmethod
            @mm.trace(name="c")
            async def of_class(cls): await leaf()
            @mm.trace(name="s")
            @staticmethod
            async def static(): await leaf()
        await Thing().method(); await Thing.of_class(); await Thing.static()
        """,
        {("m", "root", 1), ("c", "root", 1), ("s", "root", 1), ("leaf", "m", 2), ("leaf", "c", 2), ("leaf", "s", 2)},
    ),
    "named at run time": (
        """
        for i in range(2):
            async with mm.span_named(f"request {i}"):
                with mm.span_named(f"part {i}"):
                    await leaf()
        """,
        {(f"request {i}", "root", 1) for i in range(2)}
        | {(f"part {i}", f"request {i}", 2) for i in range(2)}
        | {("leaf", f"part {i}", 3) for i in range(2)},
    ),
    "closed out of order": (
        """
        first = mm.span("first").open_async(); second = mm.span("second").open_async()
        first.close()
        await leaf()
        second.close(); second.close()
        """,
        {("first", "root", 1), ("second", "first", 2), ("leaf", "root", 1)},
    ),
    "aiter in gather": (
        """
        async def consume(): return [i async for i in ticks(2)]
        assert await asyncio.gather(consume(), consume()) == [[0, 1], [0, 1]]
        """,
        {("ticks", "root", 1), ("leaf", "ticks", 2)},
    ),
}
if sys.version_info >= (3, 12):
    CASES["eager tasks"] = (
        """
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async def at_once(): mm.span("at once").open_async().close()
        async with mm.span("creator"):
            await asyncio.create_task(leaf()); await asyncio.create_task(at_once())
        await asyncio.create_task(leaf())
        """,
        {("creator", "root", 1), ("leaf", "creator", 2), ("at once", "creator", 2), ("leaf", "root", 1)},
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    """The cpu events of each case: all are sessions of one process, one after the other."""
    program = [HELPERS]
    for body, _ in CASES.values():
        lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
        program.append(f"process_ids.append(mm.init())\nasync def main():\n{lines}\nrun(main)\n")
    program.append("print(*process_ids)\n")
    script = tmp_path_factory.mktemp("matrix") / "program.py"
    script.write_text("\n".join(program), encoding="utf-8")
    server = CaptureServer()
    try:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        done = subprocess.run(
            [sys.executable, str(script)],
            env=environment | {"MICROMEGAS_TELEMETRY_URL": server.url, "PYTHONFAULTHANDLER": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        captured = server.captured
    finally:
        server.close()
    return {
        case: captured.events("cpu", process_id) for case, process_id in zip(CASES, done.stdout.split(), strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_async_matrix(recorded, case):
    spans = async_spans(recorded[case])
    assert family(spans) == CASES[case][1] | {("root", None, 0)}
    assert sum(span["name"] == "root" for span in spans.values()) == 1


def test_threads_stay_balanced(recorded):
    """Nothing that awaits leaves anything in the call trees of the threads."""
    left = {case: [event for event in events if "Thread" in event["$type"]] for case, events in recorded.items()}
    assert {case: [name for name, _ in tree(events)] for case, events in left.items() if events} == {
        "to_thread": ["in thread"]
    }


def test_what_a_span_costs_does_not_grow_with_those_that_are_open(run):
    """Among ten thousand tasks each is left in another context than the one asked about last: looked for in a list of
    all that are open, it took twenty times as long."""
    done = run(
        """
import asyncio, time
span = mm.span("waits")
async def task(rounds):
    for _ in range(rounds):
        with span:
            await asyncio.sleep(0)
async def tasks(count, rounds):
    await asyncio.gather(*(task(rounds) for _ in range(count)))
def cost(count, rounds):
    begin = time.process_time()
    asyncio.run(tasks(count, rounds))
    return (time.process_time() - begin) / (count * rounds)
mm.init()
few = min(cost(10, 2000) for _ in range(3))
many = min(cost(10_000, 4) for _ in range(3))
mm.shutdown()
print(many / few)
"""
    )
    assert float(done.stdout) < 7
