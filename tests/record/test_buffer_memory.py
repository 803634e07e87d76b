"""Little memory for buffers is enough for a program that records little; what is too little is refused."""

from __future__ import annotations

import pytest

LATE_THREAD = """
import threading, time
def leave(count):
    def work():
        for n in range(count):
            mm.log.info("event %d", n)
    thread = threading.Thread(target=work)
    thread.start(); thread.join()
for _ in range(2):
    mm.init(buffer_bytes={size}, spool={spool}, system_metrics=False)
    time.sleep(0.3)  # the thread behind has made blocks ready by now
    leave(100)
    mm.flush(30)
    print(mm.status()["lost_events"])
    mm.shutdown()
"""


@pytest.mark.parametrize("spool", [True, False])
@pytest.mark.parametrize("size", [256 << 10, 1 << 20])
def test_a_thread_that_comes_late_finds_room(run, server, size, spool):
    """In the first session of a process, and in the next."""
    done = run(LATE_THREAD.format(size=size, spool=spool))
    assert done.stdout.split() == ["0", "0"]
    assert sum(message.startswith("event ") for message in server.captured.messages()) == 200


@pytest.mark.parametrize("size", [0, 4096, (256 << 10) - 1])
def test_too_little_is_refused(run, size):
    done = run(f"try: mm.init(buffer_bytes={size})\nexcept ValueError as error: print(error)\nprint(mm.status())")
    error, status = done.stdout.splitlines()
    assert error == f"buffer_bytes {size}: at least 262144, or threads find no room for events"
    assert status == "None"


def test_the_variable_that_asks_for_too_little_is_named(run):
    program = "try: mm.init()\nexcept ValueError as error: print(error)"
    done = run(program, env={"MICROMEGAS_BUFFER_BYTES": "4096"})
    assert done.stdout.startswith("MICROMEGAS_BUFFER_BYTES 4096: at least 262144")
