"""Sync spans of threads, async spans, the decorator."""

from collections.abc import Iterable
from typing import Any

BEGIN, END = "BeginThreadSpanEvent", "EndThreadSpanEvent"
BEGIN_NAMED, END_NAMED = "BeginThreadNamedSpanEvent", "EndThreadNamedSpanEvent"
BEGINS_ASYNC = ("BeginAsyncSpanEvent", "BeginAsyncNamedSpanEvent")
ENDS_ASYNC = ("EndAsyncSpanEvent", "EndAsyncNamedSpanEvent")


def tree(events: Iterable[dict[str, Any]]) -> list[Any]:
    """Nested [name, [children]] of sync spans; fails when begin and end do not pair."""
    root: list[Any] = ["", []]
    stack = [root]
    last = 0
    for event in events:
        assert event["time"] >= last
        last = event["time"]
        name = event["thread_span_desc"]["name"] if "thread_span_desc" in event else event.get("name")
        if event["$type"] in (BEGIN, BEGIN_NAMED):
            stack[-1][1].append([name, []])
            stack.append(stack[-1][1][-1])
        elif event["$type"] in (END, END_NAMED):
            assert stack.pop()[0] == name
    assert stack == [root]
    return root[1]


def async_spans(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Async spans by id: name, parent, depth, begin, end; fails unless each has one begin and one end."""
    spans: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["$type"] in BEGINS_ASYNC:
            assert event["span_id"] not in spans
            spans[event["span_id"]] = {
                "name": event["span_desc"]["name"] if "span_desc" in event else event["name"],
                "parent": event["parent_span_id"],
                "depth": event["depth"],
                "begin": event["time"],
            }
    for event in events:
        if event["$type"] in ENDS_ASYNC:
            span = spans[event["span_id"]]
            assert "end" not in span
            assert (span["parent"], span["depth"]) == (event["parent_span_id"], event["depth"])
            span["end"] = event["time"]
            assert span["end"] >= span["begin"]
    assert all("end" in span for span in spans.values())
    return spans


def family(spans: dict[int, dict[str, Any]]) -> set[tuple[str, str | None, int]]:
    """(name, name of the parent, depth)"""
    parents = {0: None} | {span_id: span["name"] for span_id, span in spans.items()}
    return {(span["name"], parents[span["parent"]], span["depth"]) for span in spans.values()}


def test_nesting_recursion_exceptions(run, server):
    run(
        """
        import contextlib
        mm.init()
        outer = mm.span("outer")
        with outer as entered:
            assert entered is outer
            with mm.span("inner"):
                pass
            try:
                with mm.span("raises"):
                    raise ValueError
            except ValueError:
                pass
            with outer:
                pass
        def recurse(n):
            with mm.span("recurse"):
                if n: recurse(n - 1)
        recurse(2)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mm.span("stacked"))
            stack.enter_context(outer)
        for name in ("a", "b", "a"):
            with mm.span(name): pass
        with mm.span(f"{1}-é\\udc80"): pass
        mm.span("begun").begin(); mm.span("begun").end()
        """
    )
    [(name, events)] = server.captured.threads().items()
    assert name == "MainThread"
    recursion = ["recurse", [["recurse", [["recurse", []]]]]]
    assert tree([event for event in events if event["thread_span_desc"]["name"] != "begun"]) == [
        ["outer", [["inner", []], ["raises", []], ["outer", []]]],
        recursion,
        ["stacked", [["outer", []]]],
        ["a", []],
        ["b", []],
        ["a", []],
        ["1-é\\udc80", []],
    ]
    place = events[1]["thread_span_desc"]
    assert (place["target"], place["line"]) == ("__main__", 8)
    assert place["file"].endswith("program.py")


def test_threads_have_streams_of_their_own(run, server):
    run(
        """
        import threading
        mm.init(flush_period=0.05)
        def work(number):
            for i in range(5_000):
                with mm.span("work"):
                    with mm.span("part"):
                        mm.log.debug("thread %d step %d", number, i) if i % 1000 == 0 else None
        threads = [threading.Thread(target=work, args=(n,), name=f"worker-{n}") for n in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert mm.flush(60)
        """
    )
    captured = server.captured
    threads = captured.threads()
    assert sorted(threads) == [f"worker-{number}" for number in range(4)]
    for events in threads.values():
        assert tree(events) == [["work", [["part", []]]]] * 5_000
    assert sorted(captured.messages()) == sorted(
        f"thread {n} step {i}" for n in range(4) for i in range(0, 5_000, 1000)
    )
    ids = {block.stream_properties["thread-id"] for block in captured.blocks if block.tag == "cpu"}
    assert len(ids) == 4
    assert all(thread_id.isdigit() for thread_id in ids)


def test_many_short_threads_one_after_the_other(run, server):
    run(
        """
        import threading
        mm.init(flush_period=0.02)
        def work():
            with mm.span("short"): pass
        for n in range(300):
            t = threading.Thread(target=work, name=f"t{n}"); t.start(); t.join()
        assert mm.flush(60)
        """
    )
    threads = server.captured.threads()
    assert sorted(threads) == sorted(f"t{n}" for n in range(300))
    assert all(tree(events) == [["short", []]] for events in threads.values())


def test_a_thousand_threads_at_once(run, server):
    run(
        """
        import threading
        mm.init()
        ready = threading.Barrier(1001)
        def work():
            with mm.span("alive"): ready.wait()
        threading.stack_size(256 << 10)
        threads = [threading.Thread(target=work, name=f"t{n}") for n in range(1000)]
        for t in threads: t.start()
        ready.wait()
        for t in threads: t.join()
        assert mm.flush(60)
        assert mm.status()["lost_events"] == 0
        """
    )
    threads = server.captured.threads()
    assert len(threads) == 1000
    assert all(tree(events) == [["alive", []]] for events in threads.values())


def test_traced_functions_keep_what_they_are(run, server):
    run(
        """
        import copy, functools, inspect, pickle
        mm.init()
        @mm.trace
        def add(a, b=2, *rest, c, **more):
            "adds"
            return a + b + c
        assert add(1, c=3) == 6 and add(1, 5, c=3, d=4) == 9
        assert (add.__name__, add.__doc__, add.__module__) == ("add", "adds", "__main__")
        assert str(inspect.signature(add)) == "(a, b=2, *rest, c, **more)"
        assert pickle.loads(pickle.dumps(add)) is add and copy.deepcopy(add) is add
        add.attribute = 1
        assert add.attribute == 1
        class Thing:
            @mm.trace
            def method(self, x): return (self, x)
            @classmethod
            @mm.trace
            def of_class(cls): return cls
            @mm.trace
            @staticmethod
            def static(x): return x
            @mm.trace(name="other name")
            def named(self): return 1
            @property
            @mm.trace
            def prop(self): return 5
        thing = Thing()
        assert thing.method(1) == (thing, 1) and Thing.method(thing, 2) == (thing, 2)
        bound = thing.method
        assert bound(3) == (thing, 3) and bound.__self__ is thing
        assert Thing.of_class() is Thing and thing.static(4) == 4 and thing.named() == 1 and thing.prop == 5
        assert mm.trace(functools.partial(pow, 2))(3) == 8
        assert mm.trace(len)([1]) == 1
        @mm.trace
        def fails(): raise LookupError("mine")
        try: fails()
        except LookupError as error: assert error.args == ("mine",)
        @mm.trace
        def depth(n): return n and 1 + depth(n - 1)
        assert depth(200) == 200
        """
    )
    [events] = server.captured.threads().values()
    spans = tree(events)
    names = [name for name, _ in spans]
    assert names[:2] == ["add", "add"]
    assert names[2:5] == ["Thing.method"] * 3
    assert names[5:9] == ["Thing.of_class", "Thing.static", "other name", "Thing.prop"]
    assert names[10:] == ["len", "fails", "depth"]
    deepest = 0
    span = spans[-1]
    while span[1]:
        [span] = span[1]
        deepest += 1
    assert deepest == 200
    assert {event["thread_span_desc"]["target"] for event in events if event["thread_span_desc"]["name"] == "add"} == {
        "__main__"
    }


def test_traced_coroutines(run, server):
    run(
        """
        import asyncio, inspect
        mm.init()
        @mm.trace
        async def leaf(n):
            await asyncio.sleep(0.001 * n)
            return n
        @mm.trace
        async def parent():
            return await asyncio.gather(leaf(1), leaf(2), leaf(0))
        @mm.trace
        async def cancelled():
            await asyncio.sleep(100)
        @mm.trace
        async def root():
            assert await parent() == [1, 2, 0]
            task = asyncio.create_task(cancelled())
            await asyncio.sleep(0)
            task.cancel()
            try: await task
            except asyncio.CancelledError: pass
            async with mm.span("block") as entered:
                assert repr(entered) == "<span 'block'>"
                await leaf(0)
                try:
                    async with mm.span("raises"):
                        raise KeyError
                except KeyError: pass
        assert inspect.iscoroutinefunction(root)
        asyncio.run(root())
        asyncio.run(leaf(0))
        """
    )
    spans = async_spans(server.captured.events("cpu"))
    assert family(spans) == {
        ("root", None, 0),
        ("parent", "root", 1),
        ("leaf", "parent", 2),
        ("cancelled", "root", 1),
        ("block", "root", 1),
        ("leaf", "block", 2),
        ("raises", "block", 2),
        ("leaf", None, 0),
    }
    assert len(spans) == 10
    assert sorted(spans) == list(range(min(spans), min(spans) + 10))
    assert 0 < min(spans) < 2**52


def test_traced_generators(run, server):
    run(
        """
        import asyncio
        mm.init()
        @mm.trace
        async def leaf(): pass
        def drive(coroutine):
            try: coroutine.send(None)
            except StopIteration as stop: return stop.value
        @mm.trace
        def numbers(n):
            received = []
            for i in range(n):
                drive(leaf())
                try: received.append((yield i))
                except ValueError: received.append("error")
            return received
        generator = numbers(3)
        assert next(generator) == 0 and generator.send("a") == 1 and generator.throw(ValueError) == 2
        drive(leaf())  # not a child: the generator rests
        try: next(generator)
        except StopIteration as stop: assert stop.value == ["a", "error", None]
        assert list(numbers(2)) == [0, 1]
        abandoned = numbers(5); next(abandoned); abandoned.close()
        dropped = numbers(5); next(dropped); del dropped
        never_started = numbers(5); del never_started
        @mm.trace
        def delegates():
            return (yield from numbers(1))
        assert list(delegates()) == [0]
        @mm.trace
        async def ticks(n):
            for i in range(n):
                await asyncio.sleep(0)
                got = yield i
        @mm.trace
        async def consume():
            assert [i async for i in ticks(3)] == [0, 1, 2]
            async for i in ticks(3):
                break
            partial = ticks(2)
            assert await anext(partial) == 0
            await leaf()
            await partial.aclose()
        asyncio.run(consume())
        """
    )
    spans = async_spans(server.captured.events("cpu"))
    assert family(spans) == {
        ("numbers", None, 0),
        ("leaf", "numbers", 1),
        ("leaf", None, 0),
        ("delegates", None, 0),
        ("numbers", "delegates", 1),
        ("leaf", "numbers", 2),
        ("consume", None, 0),
        ("ticks", "consume", 1),
        ("leaf", "consume", 1),
    }
    assert sum(span["name"] == "numbers" for span in spans.values()) == 5


def test_spans_without_end_of_names(run, server):
    """Names made of data do not take memory without bound, and each span keeps its own."""
    run(
        """
        mm.init()
        for i in range(70_000):
            with mm.span(f"name {i}"): pass
        with mm.span("a new literal"): pass
        with mm.span("x" * 5000): pass
        assert mm.flush(60)
        """
    )
    [events] = server.captured.threads().values()
    spans = tree(events)
    names = [name for name, _ in spans]
    assert names == [f"name {i}" for i in range(70_000)] + ["a new literal", "x" * 999 + "…"]
    descriptions = {event["thread_span_desc"]["name"] for event in events if "thread_span_desc" in event}
    assert len(descriptions) < 300


def test_async_spans_never_closed(run, server):
    run(
        """
        import contextvars
        mm.init(buffer_bytes=1 << 20)
        def leave_open():
            span = mm.span("open")
            for _ in range(300_000): span.open_async()
        contextvars.copy_context().run(leave_open)
        """
    )
