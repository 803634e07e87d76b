"""What was recorded survives the process: killed at any moment, every event arrives once with the next start."""

import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from record.conftest import Captured

SEEDS = [int(seed) for seed in os.environ.get("MICROMEGAS_TEST_KILL_SEEDS", "1 2 3 4").split()]
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WAIT_RECOVERED = """
import os, time
deadline = time.monotonic() + 60
def dead():
    return [name for name in os.listdir("spool") if len(name) == 36 and name != mm.status()["process_id"]]
while dead() and time.monotonic() < deadline:
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


class Killed:
    """A run of `kill_writer.py`, killed after so many seconds, and what it had told by then."""

    def __init__(self, url: str, folder: Path, seed: int, seconds: float) -> None:
        self.seed = seed
        told = folder / f"told-{seed}"
        told.write_bytes(bytes(8 * 10))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        environment |= {
            "MICROMEGAS_TELEMETRY_URL": url,
            "MICROMEGAS_SPOOL_DIR": str(folder / "spool"),
            "MICROMEGAS_SYSTEM_METRICS": "off",
            "MICROMEGAS_PROCESS_PROPERTIES": f"seed={seed}",
        }
        program = Path(__file__).with_name("kill_writer.py")
        process = subprocess.Popen([sys.executable, str(program), str(told), str(seed)], env=environment)
        try:
            deadline = time.monotonic() + 60
            while not all(self.read(told)[slot] for slot in (0, 1, 2, 3, 4, 5, 8)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(seconds)
        finally:
            process.kill()
            child = self.read(told)[8]
            if child:
                os.kill(child, signal.SIGKILL)
            process.wait()
        self.told = self.read(told)

    @staticmethod
    def read(told: Path) -> tuple[int, ...]:
        return struct.unpack("10q", told.read_bytes())

    def check(self, captured: Captured) -> None:
        mine = {
            found["process_id"] for found in captured.processes if found["properties"].get("seed") == str(self.seed)
        }
        logs: dict[int, list[int]] = {}
        measures: dict[int, list[int]] = {}
        spans: Counter[str] = Counter()
        counted = 0
        for block in captured.blocks:
            if block.process_id not in mine:
                continue
            for event in block.events:
                if block.tag == "log":
                    if found := re.fullmatch(r"(\d+) of (\d)", event.get("msg", "")):
                        logs.setdefault(int(found[2]), []).append(int(found[1]))
                elif block.tag == "metrics":
                    name = event["desc"]["name"]
                    if name == "c":
                        counted += event["value"]
                    elif name.startswith("m"):
                        measures.setdefault(int(name[1:]), []).append(event["value"])
                else:
                    description = event.get("thread_span_desc") or event["span_desc"]
                    spans[f"{event['$type'].startswith('Begin')} {description['name']}"] += 1
        for slot in range(6):
            told = self.told[slot]
            # Each number once; at most one more than was told, since it is told after it was recorded.
            assert sorted(logs[slot]) in (list(range(told)), list(range(told + 1))), (self.seed, slot)
            assert sorted(measures[slot]) in (list(range(told)), list(range(told + 1))), (self.seed, slot)
            for begins in (True, False):
                assert spans[f"{begins} s{slot}"] in (told, told + 1), (self.seed, slot)
        told = self.told[6] + self.told[7]
        assert told <= counted <= told + 2, self.seed


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment(run, server, tmp_path, seed):
    """With the server there, away, or failing now and then; recovery is killed once, too."""
    pace = random.Random(seed)
    mood = pace.choice(["there", "away", "flaky"])
    server.answer = {
        "there": lambda route, number: 200,
        "away": lambda route, number: 503,
        "flaky": lambda route, number: pace.choice([200, 200, 503, None]),
    }[mood]
    killed = Killed(server.url, tmp_path, seed, pace.random() * 0.5)
    server.answer = lambda route, number: 200
    recover = "import time\nmm.init()\nmm.log.info('first')\nmm.flush(5)\ntime.sleep(SECONDS)\n" + KILL
    run(recover.replace("SECONDS", str(pace.random() * 0.1)), returncode=-9)
    run("mm.init()\n" + WAIT_RECOVERED)
    assert sessions(tmp_path) == []
    killed.check(server.captured)
