"""`@trace` on functions: what they stay, how deep they go, and that begin and end pair whatever happens."""

import sys

import pytest
from record.test_spans import tree

monitored = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")


def main_thread(server):
    return tree(server.captured.threads()["MainThread"])


@monitored
def test_a_function_stays_what_it_is(run, server):
    run(
        """
        import inspect, pickle
        mm.init()
        def plain(a, *, b=1):
            "doc"
            return a + b
        before = plain
        after = mm.trace(plain)
        assert after is before and type(after) is type(lambda: 0)
        assert pickle.loads(pickle.dumps(after)) is after
        assert str(inspect.signature(after)) == "(a, *, b=1)" and after.__doc__ == "doc"
        assert after(1) == 2
        """
    )
    assert main_thread(server) == [["plain", []]]


@monitored
def test_other_functions_of_the_same_code_are_not_traced(run, server):
    run(
        """
        mm.init()
        def make(n):
            def inner(): return n
            return inner
        untraced, traced, other = make(1), mm.trace(make(2), ), mm.trace(name="other")(make(3))
        again = mm.trace(make(4))
        assert again.__code__ is traced.__code__
        assert [f() for f in (untraced, traced, other, again)] == [1, 2, 3, 4]
        """
    )
    assert main_thread(server) == [["make.<locals>.inner", []], ["other", []], ["make.<locals>.inner", []]]


def test_two_decorators(run, server):
    run(
        """
        mm.init()
        @mm.trace(name="outside")
        @mm.trace(name="middle")
        @mm.trace
        def inside(fail=False):
            if fail: raise ValueError
        inside()
        try: inside(True)
        except ValueError: pass
        """
    )
    assert main_thread(server) == [["outside", [["middle", [["inside", []]]]]]] * 2


def test_exceptions_generators_and_other_callables(run, server):
    run(
        """
        import functools
        mm.init()
        @mm.trace
        def fails(n):
            if n == 0: raise LookupError
            try: fails(n - 1)
            finally: harmless()
        @mm.trace
        def harmless(): pass
        try: fails(2)
        except LookupError: pass
        class Thing:
            @mm.trace
            @property
            def value(self): return self._value
            @value.setter
            def value(self, value): self._value = value
            @mm.trace
            @functools.cached_property
            def cached(self): return 7
            @mm.trace
            @classmethod
            def of_class(cls): return cls
            @mm.trace
            def __call__(self): return 8
        thing = Thing(); thing.value = 3
        assert (thing.value, thing.cached, thing.cached, Thing.of_class(), thing()) == (3, 7, 7, Thing, 8)
        assert mm.trace(lambda: 9)() == 9
        assert mm.trace(functools.partial(int, "11"), )() == 11
        assert list(map(mm.trace(abs), (-1, 2))) == [1, 2]
        sorted([3, 1, 2], key=mm.trace(name="key")(lambda n: n))
        for wrong in (5, Thing):
            try: mm.trace(wrong)
            except TypeError as error: assert "trace" in str(error)
            else: raise AssertionError
        """
    )
    spans = main_thread(server)
    assert spans[0] == ["fails", [["fails", [["fails", []], ["harmless", []]]], ["harmless", []]]]
    assert [name for name, children in spans[1:]] == [
        "Thing.value",
        "Thing.cached",
        "Thing.of_class",
        "Thing.__call__",
        "<lambda>",
        "functools.partial(<class 'int'>, '11')",
        "abs",
        "abs",
        *["key"] * 3,
    ]


def test_deep_recursion(run, server):
    """As deep as without us: on 3.11 the wrapper recurses through C, on more stacks when the thread's is short."""
    run(
        """
        import sys, threading
        mm.init(buffer_bytes=256 << 20)
        sys.setrecursionlimit(200_000)
        @mm.trace
        def depth(n): return 1 + depth(n - 1) if n else 0
        assert depth(100_000) == 100_000
        @mm.trace
        def fails(n):
            if not n: raise ValueError("deep")
            fails(n - 1)
        def in_thread():
            try: fails(40_000)
            except ValueError: pass
            else: raise AssertionError
        thread = threading.Thread(target=in_thread, name="deep"); thread.start(); thread.join()
        sys.setrecursionlimit(1000)
        try: depth(5000)
        except RecursionError: pass
        assert mm.flush(60)
        """
    )
    for thread, expected in (("MainThread", 100_001), ("deep", 40_001)):
        deepest = level = 0
        for event in server.captured.threads()[thread]:
            level += 1 if event["$type"].startswith("Begin") else -1
            assert level >= 0
            deepest = max(deepest, level)
        assert (deepest, level) == (expected, 0)


@monitored
def test_no_tool_id_is_free(run, server):
    run(
        """
        import sys
        for tool in (3, 4): sys.monitoring.use_tool_id(tool, "another")
        mm.init()
        def plain(): return 5
        traced = mm.trace(plain)
        assert traced is not plain and traced() == 5 and traced.__wrapped__ is plain
        try: mm.trace_modules()
        except RuntimeError as error: assert "tool ids" in str(error)
        else: raise AssertionError
        """
    )
    assert main_thread(server) == [["plain", []]]


@monitored
def test_tools_that_interfere(run, server):
    """One that raises in its callback, one that takes our id away."""
    run(
        """
        import sys
        monitoring = sys.monitoring
        mm.init()
        @mm.trace
        def traced(): return victim()
        @mm.trace
        def victim(): return 1
        monitoring.use_tool_id(0, "rude")
        def rude(code, offset):
            if code.co_name == "victim": raise KeyError("rude")
        monitoring.register_callback(0, monitoring.events.PY_START, rude)
        monitoring.set_events(0, monitoring.events.PY_START)
        for _ in range(3):
            try: traced()
            except KeyError: pass
        monitoring.set_events(0, 0)
        assert traced() == 1
        monitoring.free_tool_id(4)
        monitoring.use_tool_id(4, "thief")
        late = mm.trace(lambda: 2)
        assert late() == 2 and late.__wrapped__
        """
    )
    names = [name for name, _ in main_thread(server)]
    assert names[:4] == ["traced"] * 4
    assert names[-1] == "<lambda>"


def test_balance_whatever_is_recorded(run, server):
    run(
        """
        mm.init()
        a, b, c = mm.span("a"), mm.span("b"), mm.span("c")
        c.end()
        a.begin(); b.begin(); a.end(); b.end(); c.end()
        a.begin(); a.begin(); b.begin(); c.end(); a.end()
        def one():
            with a: yield
        def two():
            with b: yield
        first, second = one(), two(); next(first); next(second); next(first, None); next(second, None)
        c.begin()
        """
    )
    assert main_thread(server) == [["a", [["b", []]]], ["a", [["a", [["b", []]]], ["a", [["b", []]]], ["c", []]]]]


def test_recording_begins_and_ends_in_the_middle(run, server):
    run(
        """
        @mm.trace
        def outer(): inner()
        @mm.trace
        def inner():
            mm.init(); leaf()
        @mm.trace
        def leaf(): pass
        outer(); leaf()
        @mm.trace
        def ends():
            leaf(); mm.shutdown(60); leaf()
        ends()
        """
    )
    assert main_thread(server) == [["leaf", []], ["leaf", []], ["ends", [["leaf", []]]]]
