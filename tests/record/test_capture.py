"""`micromegas.testing`: what user's tests see of what they record. Runs in this process, as it would there."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import micromegas as mm
from micromegas.record import levels
from micromegas.testing import capture


def our_environment():
    return {name: value for name, value in os.environ.items() if name.startswith("MICROMEGAS_")}


@pytest.fixture(autouse=True)
def _as_found():
    """A capture leaves the recorder as it found it."""
    environment, level = our_environment(), levels.log_levels()
    assert mm.status() is None
    yield
    assert mm.status() is None
    assert (our_environment(), levels.log_levels()) == (environment, level)


def test_logs():
    with capture() as events:
        mm.log.info("sold %d items to %s", 3, "ann", shop="north", till=7)
        mm.log.trace("details")
        mm.log.fatal("é \N{ROCKET}")
    sold, details, odd = events.logs
    assert (sold.level, sold.message, sold.template) == ("info", "sold 3 items to ann", "sold %d items to %s")
    assert (sold.target, sold.properties) == (__name__, {"shop": "north", "till": "7"})
    assert sold.file == __file__
    assert sold.line + 1 == details.line
    assert (details.level, details.message, details.properties) == ("trace", "details", {})
    assert (odd.level, odd.message) == ("fatal", "é \N{ROCKET}")
    assert sold.time <= details.time <= odd.time


def test_metrics_and_counters():
    sizes = mm.metric("sizes", "bytes", properties={"b": 2, "a": 1})
    hits = mm.counter("hits")
    hits.add(1000)  # before: not in it
    with capture() as events:
        sizes.record(5)
        sizes.record(2.5)
        hits.add(1)
        hits.add(2)
    assert [(m.name, m.unit, m.value, m.properties) for m in events.metrics if m.name == "sizes"] == [
        ("sizes", "bytes", 5, {"a": "1", "b": "2"}),
        ("sizes", "bytes", 2.5, {"a": "1", "b": "2"}),
    ]
    assert sum(m.value for m in events.metrics if m.name == "hits") == 3
    assert {type(m.value) for m in events.metrics} == {int, float}


def test_what_was_counted_before_the_first_session_is_in_no_capture():
    program = """
        import micromegas as mm
        from micromegas.testing import capture

        hits = mm.counter("hits")
        hits.add(1000)
        with capture() as events:
            hits.add(3)
        print([measure.value for measure in events.metrics if measure.name == "hits"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[3]\n"


def test_span_trees_of_threads():
    def work():
        with mm.span("outer"), mm.span("inner"):
            pass
        with mm.span("second"):
            pass

    with capture() as events:
        thread = threading.Thread(target=work, name="worker")
        work()
        thread.start()
        thread.join()
    assert len(events.spans) == 4
    for name in ("MainThread", "worker"):
        outer, second = (span for span in events.spans if span.thread == name)
        assert [span.name for span in outer.walk()] == ["outer", "inner"]
        assert outer.begin <= outer.children[0].begin <= outer.children[0].end <= outer.end <= second.begin
        assert (outer.parent, outer.children[0].parent, second.children) == (None, outer, [])
        assert outer.file == __file__


def test_async_span_trees():
    async def task(number):
        async with mm.span("task"):
            await asyncio.sleep(0)
            async with mm.span("step"):
                await asyncio.sleep(0)

    async def main():
        async with mm.span("all"):
            await asyncio.gather(*map(task, range(3)))

    with capture() as events:
        asyncio.run(main())
    [root] = events.async_spans
    assert [span.name for span in root.walk()] == ["all"] + ["task", "step"] * 3
    for span in root.walk():
        assert span.end >= span.begin
        assert span.depth == {"all": 0, "task": 1, "step": 2}[span.name]
        assert (span.parent.id if span.parent else 0) == span.parent_id


def test_an_async_span_that_ends_in_another_thread():
    opened = []
    with capture() as events:
        # The ending thread's block may be read first.
        for _ in range(8):
            thread = threading.Thread(target=lambda: opened.append(mm.span("handed over").open_async()))
            thread.start()
            thread.join()
        for span in opened:
            span.close()
    assert len(events.async_spans) == 8
    assert all(span.end is not None and span.end >= span.begin for span in events.async_spans)


def test_spans_that_are_open_at_the_edges():
    before, after = mm.span("before"), mm.span("after")
    with capture():
        before.begin()
        with capture() as events:
            with mm.span("whole"):
                pass
            before.end()
            after.begin()
        after.end()
    assert [(span.name, span.end is None) for span in events.spans] == [("whole", False), ("after", True)]


def test_reading_inside_of_the_block_is_complete():
    with capture() as events:
        for number in range(50):
            mm.log.info("step %d", number)
            assert [log.message for log in events.logs] == [f"step {n}" for n in range(number + 1)]
    assert len(events.logs) == 50


def test_nothing_leaks_from_one_to_the_next():
    for number in range(20):
        mm.log.info("between")
        with capture() as events:
            mm.log.info("in %d", number)
        mm.log.info("between")
        assert [log.message for log in events.logs] == [f"in {number}"]


def test_a_capture_in_a_capture():
    with capture() as outer:
        mm.log.info("1")
        with capture() as inner:
            mm.log.info("2")
        mm.log.info("3")
    assert [log.message for log in inner.logs] == ["2"]
    assert [log.message for log in outer.logs] == ["1", "2", "3"]


def test_captures_of_many_threads_each_hold_all_of_their_own():
    failures = []

    def use(name):
        try:
            for number in range(10):
                with capture() as events:
                    mm.log.info("%s %d", name, number)
                    with mm.span(name):
                        pass
                mine = [log.message for log in events.logs if log.message.startswith(name + " ")]
                assert mine == [f"{name} {number}"]
                assert [span.name for span in events.spans if span.thread == name] == [name]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(name,), name=name) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_level():
    with capture(level="warn") as events:
        mm.log.info("no")
        mm.log.warn("yes")
        mm.set_log_level("info")
        mm.log.info("now")
    assert [log.message for log in events.logs] == ["yes", "now"]
    with pytest.raises(ValueError, match="loud"), capture(level="loud"):
        pass


def test_the_levels_of_the_program():
    """Whatever their targets are called."""
    before = levels.log_levels()
    try:
        mm.set_log_level("warn")
        mm.set_log_level("debug", "odd, name=x")
        for level, expected in ((None, ["other", "odd"]), ("trace", ["trace", "other", "odd"])):
            with capture(level=level) as events:
                mm.logger("other").trace("trace")
                mm.logger("other").warn("other")
                mm.logger("odd, name=x").debug("odd")
            assert [log.message for log in events.logs] == expected
            assert levels.log_levels() == (3, {"odd, name=x": 5})
    finally:
        levels.restore_log_levels(before)


def test_an_exception_passes_and_leaves_nothing_behind():
    def fail():
        with capture() as events:
            seen.append(events)
            mm.log.info("before")
            raise KeyError("x")

    seen = []
    with pytest.raises(KeyError):
        fail()
    assert [log.message for log in seen[0].logs] == ["before"]


def test_a_program_may_init_and_shut_down_inside(monkeypatch):
    """Nothing is sent: the address is one that nobody answers at, and a session that sends would say so."""
    monkeypatch.setenv("MICROMEGAS_TELEMETRY_URL", "http://127.0.0.1:9")
    with capture() as events:
        mm.log.info("early")
        process_id = mm.init(process_name="app", level="info")
        assert mm.status()["process_id"] == process_id
        mm.log.info("one")
        mm.log.debug("below the level")
        with pytest.raises(RuntimeError, match="already started"):
            mm.init()
        assert mm.flush()
        assert mm.shutdown()
        mm.log.info("nobody records")
        mm.init()
        mm.log.info("two")
        assert mm.status()["last_error"] is None
    assert [log.message for log in events.logs] == ["early", "one", "two"]


def test_a_running_session_goes_on(run, server):
    run(
        """
        from micromegas.testing import capture
        process_id = mm.init()
        mm.log.info("before")
        with capture() as events:
            mm.log.trace("inside")
        mm.log.info("after")
        assert [log.message for log in events.logs] == ["inside"]
        assert mm.status()["process_id"] == process_id
        """
    )
    assert server.captured.messages() == ["before", "inside", "after"]


def test_a_forked_child_is_not_captured(run, server):
    run(
        """
        import os
        from micromegas.testing import capture
        with capture() as events:
            mm.log.info("parent")
            child = os.fork()
            if not child:
                mm.log.info("child")
                assert mm.flush()
                with capture() as own:
                    mm.log.info("its own")
                assert [log.message for log in own.logs] == ["its own"]
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert [log.message for log in events.logs] == ["parent"]
        """
    )
    assert not server.captured.requests


PYTEST_FILE = """
import micromegas as mm
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(number, micromegas_events):
    mm.log.info("%d", number)
    assert [log.message for log in micromegas_events.logs] == [str(number)]

def test_no_fixture():
    assert mm.status() is None
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_fixture_also_with_xdist(tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_user.py").write_text(textwrap.dedent(PYTEST_FILE), encoding="utf-8")
    arguments = ["-p", "micromegas.testing.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    if workers:
        arguments += ["-n", str(workers)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "test_user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed" in done.stdout
