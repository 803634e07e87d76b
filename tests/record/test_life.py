"""Life and death of a recording process: exit, fork, workers, restarts."""

import subprocess
import sys
import uuid

import pytest

from micromegas.record.process_facts import scrubbed_command_line


def test_process_announcement(run, server):
    parent = str(uuid.uuid4())
    done = run(
        """
        import os, sys
        print(mm.init(properties={"team": "é", 7: None, "long": "x" * 400, "nul": "a\\x00b"}))
        print(os.environ["MICROMEGAS_TELEMETRY_PARENT_PROCESS"])
        """,
        env={
            "MICROMEGAS_TELEMETRY_PARENT_PROCESS": parent,
            "MICROMEGAS_PROCESS_PROPERTIES": "stage=test, build = 12,broken,=x",
            "MICROMEGAS_INGESTION_API_KEY": "mmk_key",
        },
    )
    [process] = server.captured.processes
    assert done.stdout.split() == [process["process_id"]] * 2
    assert process["parent_process_id"] == parent
    assert process["exe"].endswith("program.py")
    assert process["tsc_frequency"] == 1_000_000_000
    assert all(process[fact] for fact in ("username", "realname", "computer", "distro", "cpu_brand"))
    properties = process["properties"]
    assert properties.items() >= {"stage": "test", "build": "12", "team": "é", "7": "None", "nul": "ab"}.items()
    assert properties["long"] == "x" * 255
    assert properties["language"] == "python"
    assert {request.authorization for request in server.captured.requests} == {"Bearer mmk_key"}


def test_default_properties(run, server):
    run("mm.init()")
    properties = server.captured.processes[0]["properties"]
    assert properties["command_line"].endswith("program.py")
    assert 0 < int(properties["physical_core_count"]) <= int(properties["logical_cpu_count"])
    assert int(properties["total_memory"]) > 1 << 20
    assert properties["version"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["python", "a.py", "--port", "80"], "python a.py --port 80"),
        (["a", "--api-key", "s3cret", "x"], "a --api-key *** x"),
        (["a", "--token=s3cret", "-v"], "a --token=*** -v"),
        (["a", "--password", "-v", "x"], "a --password -v x"),
        (["a", "postgresql://ann:s3cret@db/x?y=1"], "a postgresql://***@db/x?y=1"),
        (["a", "http://host/p@th"], "a http://host/p@th"),
        ([], ""),
    ],
)
def test_command_lines_keep_secrets(words, text):
    assert scrubbed_command_line(words) == text


def test_nothing_recorded_announces_the_process_only(run, server):
    run("mm.init(process_name='named')")
    assert server.routes() == {"insert_process": 1}
    assert server.captured.processes[0]["exe"] == "named"


def test_before_init_and_after_shutdown_nothing_raises(run, server):
    done = run(
        """
        import asyncio
        @mm.trace
        def f(): return 1
        @mm.trace
        async def g(): return 2
        m = mm.metric("m"); c = mm.counter("c")
        def everything(when):
            mm.log.info("%s %s", when, 1); mm.log.error("literal", a=1); mm.log.info("%d", object())
            m.record(1); m.record("x"); c.add(1)
            with mm.span("s"): f()
            assert asyncio.run(g()) == 2
        everything("before")
        assert mm.status() is None and mm.flush() and mm.shutdown()
        mm.init(level="info")
        everything("first")
        assert mm.shutdown() and mm.shutdown()
        everything("between")
        mm.init()
        everything("second")
        try: mm.init()
        except RuntimeError as error: print(error)
        """
    )
    assert done.stdout == "recorder: already started\n"
    captured = server.captured
    first, second = captured.processes
    assert first["process_id"] != second["process_id"]
    assert captured.messages(first["process_id"])[0] == "first 1"
    assert captured.messages(first["process_id"])[1] == "literal"
    assert captured.messages(second["process_id"])[0] == "second 1"
    assert captured.measures("m") == [1, 1]
    assert sum(captured.measures("c", first["process_id"])) == 2
    assert sum(captured.measures("c", second["process_id"])) == 1
    assert (first["parent_process_id"], second["parent_process_id"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("url='ftp://example.test'", "not of the form http://host:port"),
        ("url='127.0.0.1:9000'", "telemetry url"),
        ("url=''", "telemetry url"),
        ("level='loud'", "log level 'loud'"),
        ("api_key='a\\nb'", "printable ascii"),
        ("flush_period=-1.0", "flush period"),
        ("flush_period=float('nan')", "flush period"),
        ("properties={'micromegas.audience': 'x'}", "are the server's"),
    ],
)
def test_settings_that_cannot_be(run, server, arguments, text):
    done = run(
        f"""
        try:
            mm.init({arguments})
        except ValueError as error:
            print(error)
        mm.log.info('x')
        assert mm.status() is None
        """
    )
    assert text in done.stdout
    assert server.captured.requests == []


@pytest.mark.parametrize(
    ("ending", "returncode"),
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("raise RuntimeError('boom')", 1),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), mm.log.info('late'))).start()",
            0,
        ),
    ],
)
def test_every_way_out_sends_what_was_recorded(run, server, ending, returncode):
    run(f"mm.init()\nmm.log.info('last words')\nc = mm.counter('c'); c.add(2)\n{ending}\n", returncode=returncode)
    messages = [message.splitlines()[0] for message in server.captured.messages()]
    more = {"late": "late", "raise": "unhandled exception in the main thread"}
    assert messages == ["last words", *(text for word, text in more.items() if word in ending)]
    assert server.captured.measures("c") == [2]


def test_a_running_process_sends_each_period(run, server):
    run(
        """
        import os, time
        mm.init(flush_period=0.1)
        mm.log.info("before the crash")
        with mm.span("s"): pass
        mm.counter("c").add(1)
        time.sleep(1.5)
        os._exit(9)
        """,
        returncode=9,
    )
    assert server.captured.messages() == ["before the crash"]
    assert server.captured.measures("c") == [1]
    assert len(server.captured.events("cpu")) == 2


def test_forked_children_are_processes_of_their_own(run, server):
    done = run(
        """
        import os
        me = mm.init(flush_period=30)
        c = mm.counter("c"); c.add(100)
        mm.log.info("parent before")
        with mm.span("open in both"):
            child = os.fork()
            mm.log.info("both %d", child == 0)
            c.add(1)
            if child == 0:
                assert os.environ["MICROMEGAS_TELEMETRY_PARENT_PROCESS"] == mm.status()["process_id"] != me
                with mm.span("child"): pass
                grandchild = os.fork()
                if grandchild == 0:
                    mm.log.info("grandchild")
                    assert mm.flush(); os._exit(0)
                assert os.waitpid(grandchild, 0)[1] == 0
                assert mm.flush(); os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(me)
        """
    )
    captured = server.captured
    by_parent = {process["parent_process_id"]: process["process_id"] for process in captured.processes}
    me = done.stdout.strip()
    child = by_parent[me]
    grandchild = by_parent[child]
    assert by_parent[None] == me
    assert captured.messages(me) == ["parent before", "both 0"]
    assert captured.messages(child) == ["both 1"]
    assert captured.messages(grandchild) == ["grandchild"]
    assert sum(captured.measures("c", me)) == 101
    assert sum(captured.measures("c", child)) == 1
    names = [event["thread_span_desc"]["name"] for event in captured.events("cpu", child)]
    assert names == ["child", "child"]


def test_forks_under_load_never_hang(run, server):
    run(
        """
        import os, threading, time
        mm.init(flush_period=0.01)
        stop = False
        m = mm.metric("m")
        def load():
            while not stop:
                for i in range(10):
                    m.record(i); mm.log.info("%d", i)
                    with mm.span("s"): pass
                time.sleep(0.0005)
        threads = [threading.Thread(target=load) for _ in range(2)]
        for t in threads: t.start()
        try:
            for i in range(40):
                child = os.fork()
                if child == 0:
                    mm.log.info("child %d", i)
                    assert mm.flush(30)
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop = True
        for t in threads: t.join()
        """
    )
    captured = server.captured
    children = {process["process_id"] for process in captured.processes if process["parent_process_id"]}
    assert len(children) == 40
    texts = sorted(text for child in children for text in captured.messages(child))
    assert texts == sorted(f"child {i}" for i in range(40))


def test_a_fork_that_runs_no_python_hook(run, server):
    """Code in C may fork without telling the interpreter: the first event of the child starts a session."""
    run(
        """
        import ctypes, os, time
        mm.init()
        mm.log.info("parent")
        mm.flush()
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            mm.log.info("child")
            mm.flush()
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    captured = server.captured
    parent, child = captured.processes
    assert child["parent_process_id"] == parent["process_id"]
    assert captured.messages(child["process_id"]) == ["child"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers(run, server, method):
    run(
        f"""
        import multiprocessing, os
        def work(n):
            with mm.span("job"):
                mm.log.info("job %d", n)
            mm.counter("jobs").add(1)
            return os.getpid()
        if __name__ == "__main__":
            mm.init(api_key="secret", properties={{"team": "a"}})
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                pool.map(work, range(10))
                pool.close()
                pool.join()
            process = context.Process(target=work, args=(10,))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    captured = server.captured
    assert sorted(captured.messages()) == sorted(f"job {n}" for n in range(11))
    assert sum(captured.measures("jobs")) == 11
    [root] = [process for process in captured.processes if process["parent_process_id"] is None]
    assert {process["parent_process_id"] for process in captured.processes} == {None, root["process_id"]}
    assert {process["properties"]["team"] for process in captured.processes} == {"a"}
    assert {request.authorization for request in captured.requests} == {"Bearer secret"}


def test_subprocesses_find_their_parent(run, server):
    run(
        """
        import subprocess, sys
        if len(sys.argv) == 1:
            mm.init()
            subprocess.run([sys.executable, __file__, "child"], check=True)
        else:
            mm.init()
        """
    )
    parents = {process["parent_process_id"] for process in server.captured.processes}
    ids = {process["process_id"] for process in server.captured.processes}
    assert None in parents
    assert len(parents) == len(ids) == 2
    assert parents - {None} < ids


def test_the_monotonic_clock_as_fallback(run, server):
    """Its events have ways of their own: any values, properties, blocks that fill up, threads that begin."""
    run(
        """
        import threading
        mm.init()
        def work(name):
            for i in range(3000):
                mm.log.info("x")
                mm.log.info("%d", i)
                mm.log.info("%s %d %f", name, i, 0.5)
                mm.log.info("user %s", name, user=i)
                mm.log.info("any %s %s", [i], "é" * 100)
                with mm.span("s"):
                    pass
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
        env={"MICROMEGAS_RECORDER_CLOCK": "monotonic"},
    )
    expected = []
    for name in "ab":
        for i in range(3000):
            expected += ["x", f"{i}", f"{name} {i} 0.500000", f"user {name}", f"any [{i}] {'é' * 100}"]
    assert sorted(server.captured.messages()) == sorted(expected)
    users = [dict(event["properties"])["user"] for event in server.captured.events("log") if event.get("properties")]
    assert sorted(users) == sorted(str(i) for i in range(3000) for _ in "ab")


@pytest.mark.parametrize("clock", ["", "monotonic"])
def test_event_times_are_right(run, server, clock):
    """Times of events lie between readings of the monotonic clock around the calls; blocks cover their events."""
    done = run(
        """
        import threading, time
        mm.init(flush_period=0.03)
        def stamped():
            for i in range(40):
                before = time.monotonic_ns()
                mm.log.info("tick")
                after = time.monotonic_ns()
                print(before, after)
                time.sleep(0.005)
        print(time.time_ns())
        stamped()
        print(time.time_ns())
        """,
        env={"MICROMEGAS_RECORDER_CLOCK": clock},
    )
    lines = done.stdout.splitlines()
    captured = server.captured
    [process] = captured.processes
    times = [event["time"] for event in captured.events("log")]
    assert len(times) == 40
    slack = 20_000  # ns: reading two clocks takes its time
    for line, stamp in zip(lines[1:-1], times, strict=True):
        before, after = map(int, line.split())
        assert before - slack <= stamp <= after + slack
    first, last = int(lines[0]), int(lines[-1])
    previous_end = 0
    for block in captured.blocks:
        inside = [event["time"] - process["start_ticks"] for event in block.events]
        assert block.begin_ticks <= min(inside)
        assert max(inside) <= block.end_ticks
        assert previous_end in (0, block.begin_ticks)
        assert block.end_time - block.begin_time == block.end_ticks - block.begin_ticks
        previous_end = block.end_ticks
        for ticks in inside:
            assert first - 50_000_000 <= process["start_time"] + ticks <= last + 50_000_000


def test_signals_reach_the_program(run, server):
    """Our threads block signals, so a signal still interrupts the main thread's waits at once."""
    done = run(
        """
        import os, pathlib, signal, threading, time
        mm.init()
        signal.signal(signal.SIGUSR1, lambda *_: mm.log.info("handled"))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        time.sleep(0.5)
        for task in pathlib.Path("/proc/self/task").iterdir():
            fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            if fields["Name"].strip().startswith("mm-"):
                print(int(fields["SigBlk"], 16) >> (signal.SIGINT - 1) & 1)
        """
    )
    assert server.captured.messages() == ["handled"]
    blocked = done.stdout.split()
    assert len(blocked) >= 2
    assert set(blocked) == {"1"}


def test_import_loads_the_standard_library_and_the_core_only():
    program = "import sys; before = set(sys.modules); import micromegas; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names}
    slow = {"asyncio", "inspect", "logging", "typing", "re", "traceback", "multiprocessing", "signal", "urllib", "http"}
    assert not loaded & slow
    assert ours == {
        "micromegas",
        "micromegas._core",
        "micromegas.record",
        "micromegas.record.after_import",
        "micromegas.record.context",
        "micromegas.record.guard",
        "micromegas.record.levels",
        "micromegas.record.metrics",
        "micromegas.record.monitoring",
        "micromegas.record.otel",
        "micromegas.record.process_facts",
        "micromegas.record.session",
        "micromegas.record.settings",
        "micromegas.record.thread_names",
        "micromegas.record.trace_context",
        "micromegas.record.tracing",
    }


def test_restarts_without_waiting_lose_and_repeat_nothing(run, server):
    """A session that is told to stop without time to do so still reads the buffers when the next one begins."""
    run(
        """
        for session in range(20):
            mm.init(flush_period=0.01)
            for i in range(5000):
                mm.log.info("%d", i)
                with mm.span("s"): pass
            mm.shutdown(0)
        mm.init()
        mm.log.info("last")
        assert mm.flush(30) and mm.shutdown(30)
        """
    )
    messages: dict[str, list[str]] = {}
    for block in server.captured.blocks:
        texts = messages.setdefault(block.process_id, [])
        if block.tag == "log":
            texts.extend(event.get("msg", event["desc"]["fmt_str"]) for event in block.events)
    assert list(messages.values()).count(["last"]) == 1
    for found in messages.values():
        assert found in ([], ["last"], [str(i) for i in range(5000)])


def test_stopping_while_threads_end(run):
    run(
        """
        import _thread
        for session in range(150):
            mm.init(flush_period=0.01)
            for _ in range(20): _thread.start_new_thread(mm.log.info, ("from a thread without frames",))
            mm.shutdown(0)
        """
    )


def test_texts_that_are_no_utf8(run, server):
    run(
        """
        import sys, os
        sys.executable += "\\udcfe"
        mm.init(process_name="a\\udcffb")
        """
    )
    [process] = server.captured.processes
    assert process["exe"] == r"a\udcffb"
    assert process["properties"]["python_executable"].endswith(r"\udcfe")


def test_sub_interpreters_are_refused(run, server):
    done = run(
        """
        import sys
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        program = f'''if True:
            import sys
            sys.path[:0] = {sys.path!r}
            try:
                import micromegas
            except ImportError as error:
                print(error, flush=True)
        '''
        mm.init()
        interpreters.run_string(interpreters.create(), program)
        mm.log.info("main")
        """
    )
    assert "interpreter" in done.stdout
    assert server.captured.messages() == ["main"]


def test_a_second_import_shares_what_the_first_made(run, server):
    run(
        """
        import sys
        mm.init()
        for name in list(sys.modules):
            if name.startswith("micromegas"): del sys.modules[name]
        import micromegas as again
        assert again.log is mm.log
        for module in (mm, again):
            module.log.info("x")
            with module.span("s"): pass
        """
    )
    assert server.captured.messages() == ["x", "x"]
    assert len(server.captured.events("cpu")) == 4
