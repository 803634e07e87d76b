"""Forks under load and ends of the interpreter while threads record, as often as one likes.

    python tests/record/long_life.py --runs 1000 --seed 7

Every child must report exactly what it told, none may hang, no interpreter may crash at its end.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record.conftest import CaptureServer
from spools import forget_buffers

FORKS = """
import os, random, sys, threading
import micromegas as mm

chance = random.Random(int(sys.argv[1]))
mm.init(flush_period=0.01)
stop = threading.Event()
metric = mm.metric("m")

def load():
    while not stop.is_set():
        for i in range(10):
            metric.record(i)
            mm.log.info("load %d", i)
            with mm.span("s"):
                pass
        stop.wait(0.001)

threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        mm.log.info("child %d", number)
        os._exit(0 if mm.shutdown(30) else 1)
    stop.wait(chance.random() * 0.005)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
"""
ENDS = """
import sys, threading
import micromegas as mm

mm.init(flush_period=0.01)
mm.log.info("begun")

def load():
    while True:
        mm.log.info("%s", "x")
        with mm.span("s"):
            pass

for _ in range(3):
    threading.Thread(target=load, daemon=True).start()
threading.Event().wait(float(sys.argv[1]))
"""


def run(server: CaptureServer, program: str, *arguments: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    environment |= {"MICROMEGAS_TELEMETRY_URL": server.url, "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    with tempfile.TemporaryDirectory() as state:
        environment["MICROMEGAS_SPOOL_DIR"] = f"{state}/spool"
        returncode = subprocess.run(command, env=environment, timeout=600, check=False).returncode
        forget_buffers(Path(state, "spool"))
    return returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Fork under load and end interpreters, many times.")
    parser.add_argument("--runs", type=int, default=1000, help="forks, and as many ends (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all chance (default: 1)")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    failures = []

    forks_left = arguments.runs
    while forks_left:
        forks = min(50, forks_left)
        forks_left -= forks
        server = CaptureServer()
        returncode = run(server, FORKS, str(chance.randrange(1 << 30)), str(forks))
        captured = server.captured
        server.close()
        children = {process["process_id"] for process in captured.processes if process["parent_process_id"]}
        told = Counter(
            event["msg"] if "msg" in event else event["desc"]["fmt_str"]
            for block in captured.blocks
            if block.tag == "log" and block.process_id in children
            for event in block.events
        )
        if returncode != 0 or told != Counter(f"child {number}" for number in range(forks)):
            failures.append(f"forks: exit {returncode}, {len(children)} children, {told.total()} events")

    server = CaptureServer()
    ends = Counter(run(server, ENDS, str(chance.random() * 0.02)) for _ in range(arguments.runs))
    processes = len(server.captured.processes)
    server.close()
    if ends != Counter({0: arguments.runs}) or processes != arguments.runs:
        failures.append(f"ends: exit codes {dict(ends)}, {processes} processes announced")

    print(
        f"Python {sys.version.split()[0]}, seed {arguments.seed}: {arguments.runs} forks under load, "
        f"{arguments.runs} ends of the interpreter: {'; '.join(failures) or 'every one told exactly what it did'}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
