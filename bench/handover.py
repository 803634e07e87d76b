"""The slowest calls: what a thread pays when its block is full, and the tail of all calls while the uploader works.

    python bench/handover.py [--calls 3000000] [--pace 1000000] [--realtime]

Every call of `metric.record` is timed alone, by a loop in C (bench/floor.c); `--pace`: events per second, for the
program's thread must not be faster than any machine can read behind it. A full block comes every so many calls, which
the sizes of blocks and records tell; the calls in that place are compared with all others. "no recorder": the same
loop over an empty call, in the same run, is what the machine itself does to a thread. System calls of the recording
thread are counted by `strace -f`, when it is there. `--realtime` asks for SCHED_FIFO: other programs no longer show.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from floor import floor
from sink import sink

import micromegas as mm

FLOOR = floor()
CHUNK = 1000
PER_BLOCK = FLOOR.BLOCK_BYTES // FLOOR.METRIC_BYTES
TRACED = """
import os, sys, time
import micromegas as mm
mm.init(url="http://127.0.0.1:9", flush_period=3600)
metric = mm.metric("bench", "ns")
metric.record(0)
time.sleep(0.3)
os.access("/begin of the events", 0)
for step in range(int(sys.argv[1]) // 1000):
    for value in range(1000):
        metric.record(value)
    if step % 20 == 19:
        os.access("/pause", 0)
        time.sleep(0.02)
        os.access("/on", 0)
os.access("/end of the events", 0)
mm.shutdown(0)
os._exit(0)
"""


def timed(function: object, calls: int, pace: float) -> array[int]:
    """Ticks of every call, one after the other, at most `pace` of them in a second."""
    ticks = array("Q", bytes(8 * calls))
    view = memoryview(ticks).cast("B")
    due = time.perf_counter()
    for start in range(0, calls, CHUNK):
        FLOOR.time_calls(function, start, view[8 * start : 8 * (start + CHUNK)])
        due += CHUNK / pace
        patience = due - time.perf_counter()
        if patience > 0:
            time.sleep(patience)
    return ticks


def ticks_per_ns() -> float:
    ticks = array("Q", bytes(8))
    begin = time.perf_counter_ns()
    FLOOR.time_calls(time.sleep, 0.2, memoryview(ticks).cast("B"))
    return ticks[0] / (time.perf_counter_ns() - begin)


def show(name: str, ns: list[float]) -> None:
    ns.sort()
    at = {share: ns[min(len(ns) - 1, int(len(ns) * share))] for share in (0.5, 0.99, 0.999, 0.9999)}
    figures = "".join(f"{value:>11.0f}" for value in [*at.values(), ns[-1]])
    print(f"{name:<28}{len(ns):>9}{figures}")


def full_blocks(ns: list[float]) -> tuple[list[float], list[float]]:
    """The calls of the slowest step of changing blocks, and the others. The first block's size is not known, so the
    place within the period is found by its slowness."""
    # All blocks but a thread's first hold the same number of events.
    place = max(range(PER_BLOCK), key=lambda place: statistics.median(ns[place::PER_BLOCK]))
    return ns[place::PER_BLOCK], [value for index, value in enumerate(ns) if index % PER_BLOCK != place]


def system_calls(events: int) -> str:
    strace = shutil.which("strace")
    if not strace:
        return "left out: there is no strace"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        subprocess.run(
            [strace, "-f", "-o", str(log), sys.executable, "-c", TRACED, str(events)],
            env=os.environ | {"MICROMEGAS_SPOOL_DIR": f"{folder}/spool"},
            check=True,
            timeout=300,
        )
        lines = log.read_text(errors="replace").splitlines()
    begin = next(index for index, line in enumerate(lines) if "/begin of the events" in line)
    thread = lines[begin].split()[0]
    mine = [line for line in lines[begin + 1 :] if line.split()[0] == thread]
    names: dict[str, int] = {}
    pausing = False
    for line in mine:
        if "/end of the events" in line:
            break
        pausing = "/pause" in line or (pausing and '"/on"' not in line)
        match = re.match(r"\d+ +(\w+)\(", line)
        if match and not pausing and '"/on"' not in line:
            names[match[1]] = names.get(match[1], 0) + 1
    told = ", ".join(f"{count} {name}" for name, count in sorted(names.items())) or "none"
    return f"{told} in {events} events, {events // PER_BLOCK} full blocks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3_000_000)
    parser.add_argument("--pace", type=float, default=1_000_000)
    parser.add_argument("--realtime", action="store_true")
    options = parser.parse_args()
    calls = options.calls // CHUNK * CHUNK
    per_ns = ticks_per_ns()
    with sink() as server, contextlib.ExitStack() as recording:
        mm.init(url=server.url, flush_period=0.2)
        recording.callback(mm.shutdown)
        metric = mm.metric("bench", "ns")
        timed(metric.record, CHUNK, options.pace)
        if options.realtime:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        empty = [value / per_ns for value in timed(FLOOR.empty, calls, options.pace)]
        ns = [value / per_ns for value in timed(metric.record, calls, options.pace)]
        if options.realtime:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        print(f"{'ns of a call':<28}{'calls':>9}{'median':>11}{'p99':>11}{'p99.9':>11}{'p99.99':>11}{'worst':>11}")
        show("no recorder: an empty call", empty)
        full, others = full_blocks(ns)
        median = statistics.median(full) - statistics.median(others)
        show("metric.record, all", ns)
        show("metric.record, block full", full)
        tail = sorted(ns)[int(len(ns) * 0.9999)]
        print(f"hand-over of a full block, median: {median:.0f} ns, limit 1000  {'OK' if median <= 1000 else 'over'}")
        print(f"p99.99 of all calls: {tail:.0f} ns, limit 50000  {'OK' if tail <= 50_000 else 'over'}")
        print(f"lost events: {(mm.status() or {})['lost_events']}")
    print(f"system calls of the recording thread: {system_calls(400_000)}")


if __name__ == "__main__":
    main()
