"""What was recorded survives the process: killed at any moment, every event arrives once with the next start."""

from pathlib import Path

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WAIT_RECOVERED = """
import time
deadline = time.monotonic() + 60
while not mm.status()["recovered_processes"] and time.monotonic() < deadline:
    mm.log.info("are you there")
    mm.flush(5); time.sleep(0.02)
"""


def sessions(tmp_path: Path) -> list[str]:
    return sorted(entry.name for entry in (tmp_path / "spool").iterdir())


def test_a_killed_process_loses_nothing(run, server, tmp_path):
    """Nothing was sent nor cut: the flush period is a day."""
    dead = run(
        f"""
        mm.init(flush_period=86400)
        m, c = mm.metric("m", properties={{"a": "b"}}), mm.counter("c")
        for i in range(5000):
            mm.log.info("x %d", i); m.record(i); c.add(2)
            with mm.span("outer"):
                with mm.span("inner"): pass
        print(mm.status()["process_id"], flush=True)
        {KILL}
        """,
        returncode=-9,
    ).stdout.strip()
    assert sessions(tmp_path) == [dead]
    run("mm.init()\n" + WAIT_RECOVERED)
    captured = server.captured
    messages = captured.messages(dead)
    assert messages[:-1] == [f"x {i}" for i in range(5000)]
    assert messages[-1].startswith("the process ended without shutdown; 30000 events were recovered")
    assert captured.measures("m", dead) == list(range(5000))
    assert captured.measures("c", dead) == [10000]
    assert len(captured.events("cpu", dead)) == 20000
    assert sessions(tmp_path) == []


def test_a_clean_exit_leaves_nothing(run, server, tmp_path):
    run("mm.init()\nmm.log.info('x')\n")
    assert server.captured.messages() == ["x"]
    assert sessions(tmp_path) == []


def test_what_could_not_be_sent_at_exit_is_sent_by_the_next_start(run, server, tmp_path):
    server.answer = lambda route, number: 503
    dead = run(
        "mm.init()\nfor i in range(100): mm.log.info('x %d', i)\nprint(mm.status()['process_id'])\n"
    ).stdout.strip()
    assert sessions(tmp_path) == [dead]
    assert not any(entry.name.startswith(("buffer", "control")) for entry in (tmp_path / "spool" / dead).iterdir())
    server.answer = lambda route, number: 200
    run("mm.init()\n" + WAIT_RECOVERED)
    assert server.captured.messages(dead) == [f"x {i}" for i in range(100)]
    assert sessions(tmp_path) == []
