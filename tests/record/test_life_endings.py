"""Ends of recorded processes by signals: what was recorded arrives, and the end is what it would be without us."""

import signal
import subprocess
import sys

import pytest
from deadlines import started

KILL_ME = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"


ENDED = [-signal.SIGTERM, "before", "ended by signal 15"]


@pytest.mark.parametrize(
    ("preparation", "end"),
    [
        ("", ENDED),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))", [5, "before"]),
        ("signal.signal(signal.SIGTERM, lambda *_: (mm.log.info('handled'), sys.exit()))", [0, "before", "handled"]),
        # as uvicorn does: takes the signal for a while, puts back what was there, then dies by it
        ("old = signal.signal(signal.SIGTERM, print); signal.signal(signal.SIGTERM, old)", ENDED),
        ("threading.Thread(target=lambda: time.sleep(60)).start()", ENDED),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_sigterm(run, server, preparation, end, when):
    first, second = ("mm.init(flush_period=60)", preparation)[:: 1 if when == "after" else -1]
    program = f"import os, signal, sys, threading, time\n{first}\n{second}\nmm.log.info('before')\n{KILL_ME}\n"
    run(program, returncode=end[0])
    assert server.captured.messages() == end[1:]


def test_a_server_that_took_sigterm_before_and_dies_by_it(run, server):
    run(
        f"""
        import os, signal, sys, time
        old = signal.signal(signal.SIGTERM, print)
        mm.init(flush_period=60)
        mm.log.info("before")
        signal.signal(signal.SIGTERM, old)
        {KILL_ME}
        """,
        returncode=-signal.SIGTERM,
    )
    assert server.captured.messages() == ENDED[1:]


def test_credentials_that_take_time_at_the_end(run, server):
    """Python code can still run to obtain them when the program has ended."""
    run(
        """
        import threading
        asked = threading.Event()
        def token():
            asked.wait(0.3)
            return "late"
        mm.init(auth=token)
        mm.log.info("x")
        """
    )
    assert server.captured.messages() == ["x"]
    assert {request.authorization for request in server.captured.requests} == {"Bearer late"}


def test_sigterm_while_the_main_thread_is_busy_in_c(run, server):
    """A handler in Python would wait for the end of the call."""
    run(
        """
        import os, signal, subprocess, sys
        mm.init()
        mm.log.info("busy")
        killer = f"import os, time; time.sleep(0.3); os.kill({os.getpid()}, 15)"
        subprocess.Popen([sys.executable, "-c", killer])
        10**10**9  # without a look at signals, for longer than anybody waits
        """,
        returncode=-signal.SIGTERM,
    )
    assert server.captured.messages() == ["busy", "ended by signal 15"]


def test_sigterm_that_was_ignored_stays_ignored(run, server):
    run(
        f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mm.init()
        {KILL_ME.replace("60", "0.1")}
        mm.log.info("alive")
        """
    )
    assert server.captured.messages() == ["alive"]


def test_sigterm_without_a_server(run):
    run("import os, signal, time; mm.init(url='http://127.0.0.1:1'); mm.log.info('x')\n" + KILL_ME, returncode=-15)


def test_an_event_loop_handles_sigterm_itself(run, server):
    run(
        """
        import asyncio, os, signal
        async def main():
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()
            mm.log.info("stopped in order")
        mm.init()
        asyncio.run(main())
        """
    )
    assert server.captured.messages() == ["stopped in order"]


def test_shutdown_gives_everything_back(run):
    done = run(
        """
        import asyncio, signal, sys, threading
        hooks = lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook, signal.getsignal(signal.SIGTERM),
                         signal.signal, asyncio.BaseEventLoop.call_exception_handler)
        before = hooks()
        mm.init()
        during = hooks()
        mm.shutdown()
        print([was is now for was, now in zip(before, hooks())], [was is now for was, now in zip(before, during)])
        mm.init(hooks=False)
        print(before == hooks())
        """
    )
    assert done.stdout == f"{[True] * 6} {[False] * 6}\nTrue\n"


def test_interrupt(run, server):
    run("import os, signal, time; mm.init(); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", returncode=-2)
    [message] = server.captured.messages()
    assert message.startswith("interrupted in the main thread, ")
    assert message.endswith("program.py, line 2, in <module>")
    assert server.captured.events("log")[0]["desc"]["level"] == 3


CRASHES = {
    "SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "SIGABRT": "os.abort()",
    "SIGBUS": """
import mmap, tempfile
file = tempfile.TemporaryFile(); file.truncate(8192)
memory = mmap.mmap(file.fileno(), 8192); file.truncate(0)
memory[4096]
""",
    "SIGFPE": "os.kill(os.getpid(), signal.SIGFPE)",
    "SIGILL": "os.kill(os.getpid(), signal.SIGILL)",
}


@pytest.mark.parametrize("handlers", ["", "before", "after"])
@pytest.mark.parametrize("name", CRASHES)
def test_crashes_are_told_with_a_traceback(run, server, name, handlers):
    enable = "import faulthandler; faulthandler.enable()"
    text = [
        "import os, signal",
        enable if handlers == "before" else "",
        "mm.init(flush_period=60)",
        enable if handlers == "after" else "",
        "mm.log.info('before')",
        "def falls():",
        *(f"    {line}" for line in CRASHES[name].splitlines()),
        "falls()",
    ]
    done = run("\n".join(text), returncode=-signal.Signals[name], env={"PYTHONFAULTHANDLER": ""})
    before, report = server.captured.messages()
    assert before == "before"
    assert report.startswith(f"killed by signal {int(signal.Signals[name])} ({name}")
    assert "program.py" in report
    assert " in falls\n" in report
    assert server.captured.events("log")[1]["desc"]["level"] == 1
    assert ("Fatal Python error" in done.stderr) == bool(handlers)


def test_an_overflow_of_the_stack_is_told(run, server):
    run(
        """
        import sys
        mm.init()
        sys.setrecursionlimit(10**9)
        class Endless:
            def __repr__(self):
                return "%r" % (self,)
        repr(Endless())
        """,
        returncode=None if sys.version_info >= (3, 12) else -signal.SIGSEGV,
    )
    frame = "in __repr__" if sys.version_info >= (3, 12) else "Endless.__repr__"
    assert frame in server.captured.messages()[0]


def test_a_crash_in_a_thread_while_others_record(run, server):
    run(
        """
        import ctypes, threading, time
        mm.init(flush_period=60)
        def load():
            while True:
                mm.log.debug("load")
                time.sleep(0.001)
        threading.Thread(target=load, daemon=True).start()
        time.sleep(0.1)
        threading.Thread(target=ctypes.string_at, args=(0,)).start()
        time.sleep(60)
        """,
        returncode=-signal.SIGSEGV,
    )
    messages = server.captured.messages()
    assert "load" in messages
    assert sum(message.startswith("killed by signal 11") for message in messages) == 1


def test_a_crash_in_a_forked_child(run, server):
    run(
        """
        import ctypes, os
        mm.init()
        child = os.fork()
        if child == 0:
            ctypes.string_at(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -11
        """
    )
    [report] = server.captured.messages()
    assert report.startswith("killed by signal 11")


def test_a_crash_without_a_server_does_not_hang(run):
    run("import os; mm.init(url='http://127.0.0.1:1'); os.abort()", returncode=-signal.SIGABRT)


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 15); time.sleep(60)"])
def test_what_a_dying_process_cannot_send_is_sent_by_the_next(run, server, end):
    server.answer = lambda route, number: 503
    run(f"import os, time; mm.init(); mm.log.info('x'); {end}", returncode=None)
    server.answer = lambda route, number: 200
    assert server.captured.messages() == []
    run(
        """
        import time
        mm.init()
        give_up = time.monotonic() + 30
        while not mm.status()["recovered_processes"] and time.monotonic() < give_up:
            time.sleep(0.02)
        mm.log.info("next")
        """
    )
    messages = server.captured.messages()
    assert "x" in messages
    assert sum(message.startswith(("killed by signal 6", "ended by signal 15")) for message in messages) == 1


def test_handlers_of_exit_and_destructors_are_heard(run, server):
    run(
        """
        import atexit, threading
        atexit.register(lambda: mm.log.info("registered before init"))
        mm.init(flush_period=60)
        atexit.register(lambda: mm.log.info("registered after init"))
        class Last:
            def __init__(self): self.log = mm.log
            def __del__(self): self.log.info("destructor at the end of the interpreter")
        last = Last()
        last.itself = last
        counter = mm.counter("c")
        atexit.register(lambda: counter.add(3))
        """
    )
    assert server.captured.messages() == [
        "registered after init",
        "registered before init",
        "destructor at the end of the interpreter",
    ]
    assert server.captured.measures("c") == [3]


def test_daemon_threads_that_record_while_the_interpreter_ends(run, server):
    for _ in range(5):
        run(
            """
            import threading
            mm.init(flush_period=0.01)
            metric = mm.metric("m")
            def load():
                while True:
                    mm.log.info("%s", "x")
                    metric.record(1)
                    with mm.span("s"): pass
            for _ in range(3):
                threading.Thread(target=load, daemon=True).start()
            """
        )


def test_the_flush_at_the_end_is_bounded(tmp_path, run):
    """A server that takes connections and never answers."""
    run(
        """
        import socket
        listener = socket.create_server(("127.0.0.1", 0))
        mm.init(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        mm.log.info("x")
        """
    )


def test_os_exit_loses_what_was_not_flushed_and_nothing_else(run, server):
    run("import os; mm.init(); mm.log.info('flushed'); assert mm.flush(); mm.log.info('x'); os._exit(3)", returncode=3)
    assert server.captured.messages()[0] == "flushed"


def test_ctrl_c_at_the_end_returns_at_once(tmp_path):
    """While the interpreter waits for a dead server at its end, an interrupt ends it."""
    program = """
import os, signal, socket, subprocess, sys
import micromegas as mm
listener = socket.create_server(("127.0.0.1", 0))
mm.init(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
print("ready", flush=True)
"""
    with started([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.read() == b"ready\n"  # to the end: stdout is closed after the last line of Python
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (-signal.SIGINT, 0)
