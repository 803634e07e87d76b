"""Spans come under the name that their thread has: also when it gets another, or when Python did not start it."""

from __future__ import annotations

import textwrap

from record.conftest import WAIT_RECOVERED

NATIVE = """
    import _thread, ctypes, threading
    prctl = ctypes.CDLL(None).prctl
    for_ever = _thread.allocate_lock()
    for_ever.acquire()
    def in_native_thread(work, name):
        done = _thread.allocate_lock()
        done.acquire()
        def run():
            prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
            work()
            done.release()
            for_ever.acquire()  # its ident goes to no other: `threading` would take that for this one
        _thread.start_new_thread(run, ())
        done.acquire()
"""


def spans_by_name(server):
    return {
        name: [event["thread_span_desc"]["name"] for event in events if event["$type"].startswith("Begin")]
        for name, events in server.captured.threads().items()
    }


def test_a_new_name_is_another_stream(run, server):
    run(
        """
        import threading
        mm.init()
        def work():
            me = threading.current_thread()
            for name in ("first", "second", "third"):
                me.name = name
                mm.flush()
                with mm.span("in " + name): pass
                mm.flush()
            me.name = "third"
            with mm.span("same"): pass
        thread = threading.Thread(target=work, name="unnamed")
        thread.start(); thread.join()
        """
    )
    assert spans_by_name(server) == {"first": ["in first"], "second": ["in second"], "third": ["in third", "same"]}
    threads = {block.stream_properties["thread-id"] for block in server.captured.blocks if block.tag == "cpu"}
    assert len(threads) == 1


def test_a_name_given_before_anything_was_sent_counts_from_the_start(run, server):
    """As a worker names itself in its first line, inside of a span that lasts as long as it."""
    run(
        """
        import threading
        mm.init(flush_period=60)
        def work():
            with mm.span("whole life"):
                threading.current_thread().name = "é worker"
                with mm.span("work"): pass
        thread = threading.Thread(target=work)
        thread.start(); thread.join()
        """
    )
    assert spans_by_name(server) == {"é worker": ["whole life", "work"]}


def test_open_spans_stay_in_one_stream(run, server):
    run(
        """
        import threading
        mm.init()
        def work():
            with mm.span("outer"):
                mm.flush()
                threading.current_thread().name = "later"
                mm.flush()
                with mm.span("inner"): pass
            mm.flush()
            with mm.span("next"): pass
        thread = threading.Thread(target=work, name="sooner")
        thread.start(); thread.join()
        """
    )
    assert spans_by_name(server) == {"sooner": ["outer", "inner"], "later": ["next"]}
    for events in server.captured.threads().values():
        assert sum(event["$type"].startswith("Begin") for event in events) * 2 == len(events)


def test_others_may_name_a_thread(run, server):
    run(
        """
        import threading
        mm.init()
        thread_has, go_on = threading.Event(), threading.Event()
        def work():
            with mm.span("one"): pass
            mm.flush()
            thread_has.set(); go_on.wait(30)
            with mm.span("two"): pass
        thread = threading.Thread(target=work, name="one")
        thread.name = "before its start"
        thread.start(); thread_has.wait(30)
        threading.current_thread().name = "main"
        thread.setName("two") if hasattr(thread, "setName") else setattr(thread, "name", "two")
        mm.flush(); go_on.set(); thread.join(); mm.flush()
        thread.name = "after its end"
        with mm.span("main"): pass
        """
    )
    assert spans_by_name(server) == {"before its start": ["one"], "two": ["two"], "main": ["main"]}


def test_threads_that_python_did_not_start(run, server):
    run(
        NATIVE
        + """
    mm.init()
    def spans():
        with mm.span("s"): pass
    in_native_thread(spans, "io-worker")
    in_native_thread(lambda: (threading.current_thread(), spans()), "known by now")
    def named():
        threading.current_thread().name = "by hand"
        spans()
    in_native_thread(named, "not this")
    in_native_thread(spans, "é" * 20)
    mm.flush()
        """
    )
    names = spans_by_name(server)
    cut = ("é" * 20).encode()[:15].decode("utf-8", "replace")
    assert names == {"io-worker": ["s"], "known by now": ["s"], "by hand": ["s"], cut: ["s"]}


def test_hostile_names(run, server):
    run(
        """
        import threading
        class Odd:
            def __str__(self): return "odd"
        mm.init()
        names = ["\\udc80", "a\\0b", "n" * 1000, Odd(), 7]
        def work(name):
            threading.current_thread().name = name
            with mm.span("s"): pass
        for name in names:
            thread = threading.Thread(target=work, args=(name,))
            thread.start(); thread.join()
        class Refuses:
            def __str__(self): raise ValueError("the program's own")
        try: threading.current_thread().name = Refuses()
        except ValueError: pass
        else: raise AssertionError
        assert threading.current_thread().name == "MainThread"
        """
    )
    names = [block.stream_properties.get("thread-name") for block in server.captured.blocks if block.tag == "cpu"]
    assert sorted(names) == sorted(["?", "ab", "n" * 255, "odd", "7"])


def test_names_change_under_load(run, server):
    """Renamed by many while they record: nothing is lost, no span is in two streams, every name is whole."""
    run(
        """
        import threading
        mm.init(flush_period=0.01)
        def work():
            for i in range(4000):
                with mm.span("outer"):
                    with mm.span("inner"): pass
        threads = [threading.Thread(target=work, name="0" * 200) for _ in range(3)]
        for thread in threads: thread.start()
        turn = 0
        while any(thread.is_alive() for thread in threads):
            turn += 1
            for thread in threads: thread.name = str(turn % 10) * 200
        for thread in threads: thread.join()
        assert mm.flush(60)
        assert mm.status()["mended_spans"] == {"no_begin": 0, "no_end": 0, "left_open": 0}
        """
    )
    total = 0
    for name, events in server.captured.threads().items():
        assert len(set(name)) == 1
        assert len(name) == 200
        begins = sum(event["$type"].startswith("Begin") for event in events)
        assert begins * 2 == len(events)
        total += begins
    assert total == 3 * 4000 * 2


def test_a_killed_thread_comes_under_its_last_name(run, server):
    dead = run(
        """
        import os, signal, threading
        mm.init(flush_period=86400)
        with mm.span("s"): pass
        threading.current_thread().name = "renamed"
        with mm.span("s"): pass
        print(mm.status()["process_id"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        returncode=-9,
    ).stdout.strip()
    run("mm.init()\n" + WAIT_RECOVERED)
    [block] = [block for block in server.captured.blocks if block.tag == "cpu" and block.process_id == dead]
    assert block.stream_properties["thread-name"] == "renamed"
    assert len(block.events) == 4


def test_where_the_class_of_threads_has_been_replaced(run, server):
    """As gevent does (tests/frameworks runs that), before or after `init()`."""
    replace = "class Green(threading.Thread): pass\nthreading.Thread = Green"
    for steps in (("mm.init()", replace), (replace, "mm.init()")):
        run(
            "\n".join(("import threading", *steps))
            + textwrap.dedent(
                """
                with mm.span("s"): pass
                mm.flush()
                threading.main_thread().name = "renamed"
                with mm.span("s"): pass
                """
            )
        )
        assert spans_by_name(server) == {"MainThread": ["s"], "renamed": ["s"]}
        with server.lock:
            server.requests.clear()
