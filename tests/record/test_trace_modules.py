"""Automatic tracing: which functions, in all threads, balanced, on and off."""

from collections import Counter

from record.test_spans import async_spans, family, tree

PACKAGE = """
import pathlib, sys
package = pathlib.Path("myapp"); package.mkdir()
(package / "__init__.py").write_text("def top(): return 1\\n")
(package / "work.py").write_text('''
import json
from myapp import hot
class Thing:
    def method(self, n):
        return [hot.inner(x) for x in range(n)]
    @property
    def prop(self): return json.dumps({"a": 1})
def generator(n):
    for i in range(n):
        yield i
async def coroutine(n):
    import asyncio
    for _ in range(n): await asyncio.sleep(0)
    return n
def fails(n):
    if n: fails(n - 1)
    else: raise LookupError
def calls(function): return function()
''')
(package / "hot.py").write_text("def inner(x): return x\\n")
sys.path.insert(0, ".")
def own(): return 2
"""


def spans_of(server, thread="MainThread"):
    return tree(server.captured.threads()[thread])


def flat(spans):
    return Counter(name for span in spans for name in (span[0], *flat(span[1]).elements()))


def test_modules_are_chosen_by_name(run, server):
    run(
        PACKAGE
        + """
mm.init()
mm.trace_modules(include=["myapp"], exclude=["myapp.hot"])
import myapp, myapp.work as work
myapp.top(); own()
work.Thing().method(3); work.Thing().prop
mm.trace_modules(include=["myapp.hot"])
work.Thing().method(2); own()
mm.trace_modules()
own(); work.calls(own)
mm.untrace_modules()
own(); myapp.top()
"""
    )
    assert spans_of(server) == [
        ["top", []],
        ["Thing.method", []],
        ["Thing.prop", []],
        ["inner", []],
        ["inner", []],
        ["own", []],
        ["calls", [["own", []]]],
    ]


def test_exceptions_generators_and_coroutines_are_balanced(run, server):
    run(
        PACKAGE
        + """
import asyncio, contextlib
mm.init()
mm.trace_modules(include=["myapp"])
import myapp.work as work
with contextlib.suppress(LookupError): work.fails(2)
assert list(work.generator(2)) == [0, 1]
abandoned = work.generator(3); next(abandoned); abandoned.close()
thrown = work.generator(3); next(thrown)
with contextlib.suppress(KeyError): thrown.throw(KeyError)
async def main(): return await asyncio.gather(work.coroutine(2), work.coroutine(3))
assert asyncio.run(main()) == [2, 3]
async def cancelled():
    task = asyncio.create_task(work.coroutine(1000)); await asyncio.sleep(0); task.cancel()
    with contextlib.suppress(asyncio.CancelledError): await task
asyncio.run(cancelled())
with mm.span("after"): pass
"""
    )
    spans = spans_of(server)
    assert spans[0] == ["fails", [["fails", [["fails", []]]]]]
    names = [name for name, _ in spans]
    assert names.count("generator") in range(5, 9)
    assert names.count("coroutine") >= 7
    assert spans[-1] == ["after", []]
    assert all(not children for name, children in spans if name != "fails")


def test_all_threads_and_those_started_later(run, server):
    run(
        PACKAGE
        + """
import threading
mm.init()
import myapp.work as work
go = threading.Event()
def early(): go.wait(); work.calls(own)
threads = [threading.Thread(target=early, name="early")]
threads[0].start()
mm.trace_modules(["myapp", "__main__"])
threads.append(threading.Thread(target=lambda: work.calls(own), name="later")); threads[1].start()
go.set()
for thread in threads: thread.join()
"""
    )
    threads = server.captured.threads()
    # The early thread's function runs since before tracing began.
    assert tree(threads["early"]) == [["calls", [["own", []]]]]
    assert tree(threads["later"]) == [["<lambda>", [["calls", [["own", []]]]]]]


def test_decorated_functions_are_traced_once(run, server):
    run(
        PACKAGE
        + """
import asyncio
mm.init()
mm.trace_modules()
@mm.trace(name="decorated")
def function(): return own()
@mm.trace(name="task")
async def coroutine(): own()
function()
asyncio.run(coroutine())
"""
    )
    sync = [event for event in server.captured.events("cpu") if "Thread" in event["$type"]]
    assert tree(sync) == [["decorated", [["own", []]]], ["own", []]]
    assert family(async_spans(server.captured.events("cpu"))) == {("task", None, 0)}


def test_by_environment(run, server):
    run(
        PACKAGE
        + """
mm.init()
import myapp.work as work
work.Thing().method(2); own()
""",
        env={"MICROMEGAS_TRACE": "myapp, -myapp.hot"},
    )
    assert spans_of(server) == [["Thing.method", []]]


def test_deep_recursion_under_automatic_tracing(run, server):
    run(
        """
        import sys
        mm.init(buffer_bytes=256 << 20)
        mm.trace_modules()
        sys.setrecursionlimit(200_000)
        def depth(n): return 1 + depth(n - 1) if n else 0
        assert depth(50_000) == 50_000
        mm.untrace_modules()
        assert depth(50_000) == 50_000
        assert mm.flush(60)
        """
    )
    level = deepest = 0
    for event in server.captured.threads()["MainThread"]:
        level += 1 if event["$type"].startswith("Begin") else -1
        deepest = max(deepest, level)
    assert (level, deepest) == (0, 50_001)


def test_switched_on_and_off_all_the_time(run, server):
    run(
        """
        import threading
        mm.init()
        stop = threading.Event()
        def leaf(n): return n
        def work():
            while not stop.is_set():
                for n in range(100): leaf(n)
        threads = [threading.Thread(target=work, name=f"t{n}") for n in range(3)]
        for thread in threads: thread.start()
        for n in range(60):
            mm.trace_modules()
            sum(leaf(m) for m in range(50))
            mm.untrace_modules()
        stop.set()
        for thread in threads: thread.join()
        assert mm.flush(60)
        """
    )
    for events in server.captured.threads().values():
        assert set(flat(tree(events))) <= {"leaf", "work", "<lambda>"}


def test_tasks(run, server):
    run(
        """
        import asyncio, contextlib, contextvars
        mm.init()
        async def child(n):
            await asyncio.sleep(0.001 * n)
            with mm.span("inside"): await asyncio.sleep(0)
        async def fails(): raise LookupError
        made = []
        async def main():
            loop = asyncio.get_running_loop()
            def factory(loop, coroutine, **options):
                made.append(coroutine.__qualname__)
                return asyncio.Task(coroutine, loop=loop, **options)
            loop.set_task_factory(factory)
            mm.trace_tasks(); mm.trace_tasks(loop)
            async with mm.span("group"):
                async with asyncio.TaskGroup() as group:
                    for n in range(3): group.create_task(child(n), name=f"n{n}")
            with contextlib.suppress(LookupError): await asyncio.create_task(fails())
            waits = asyncio.create_task(child(10_000)); await asyncio.sleep(0.001); waits.cancel()
            with contextlib.suppress(asyncio.CancelledError): await waits
            await loop.create_task(child(0), context=contextvars.Context())
            assert mm.traceparent() is None
        asyncio.run(main())
        assert made[:6] == ["child"] * 3 + ["fails"] + ["child"] * 2
        try: mm.trace_tasks()
        except RuntimeError: pass
        else: raise AssertionError
        """
    )
    spans = async_spans(server.captured.events("cpu"))
    # The loop's own tasks at its end are not of interest here.
    spans = {span_id: span for span_id, span in spans.items() if "shutdown" not in span["name"]}
    assert family(spans) == {
        ("group", None, 0),
        ("child", "group", 1),
        ("inside", "child", 2),
        ("fails", None, 0),
        ("child", None, 0),
        ("inside", "child", 1),
    }
    assert Counter(span["name"] for span in spans.values()) == {"child": 5, "inside": 4, "group": 1, "fails": 1}


def test_notebook_magics(run, server):
    """With a shell that has of IPython's what an extension is promised."""
    run(
        """
        import micromegas, types
        class Shell:
            def __init__(self):
                self.magics_manager = types.SimpleNamespace(magics={"line": {}, "cell": {}})
                self.names = {"__name__": "__main__"}
            def register_magic_function(self, function, magic_kind="line", magic_name=None):
                self.magics_manager.magics[magic_kind][magic_name] = function
            def run_cell(self, cell):
                exec(cell, self.names)
                return types.SimpleNamespace(error_before_exec=None, error_in_exec=None)
        shell = Shell()
        micromegas.load_ipython_extension(shell)
        magics = shell.magics_manager.magics
        magics["cell"]["span"]("load data", "def f(): return 1\\nf()")
        magics["line"]["mm_trace"]("__main__")
        magics["cell"]["span"]("", "f()")
        magics["line"]["mm_trace"]("off")
        shell.run_cell("f()")
        micromegas.unload_ipython_extension(shell)
        assert magics == {"line": {}, "cell": {}}
        """
    )
    assert tree(server.captured.threads()["MainThread"])[0] == ["load data", []]
    assert tree(server.captured.threads()["MainThread"])[-1] == ["cell", [["Shell.run_cell", [["f", []]]]]]
