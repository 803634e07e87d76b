"""What an event costs in the thread behind the recorder: reading, scrubbing, encoding, compressing, sending.

    python bench/behind.py                  # CPU time of the native threads, the best of some rounds
    python bench/behind.py --instructions   # their machine instructions by callgrind: repeats on a noisy machine

Limit: 100 ns an event, which is 1 % of a core for 100 000 events a second. It is that of a program that goes on: each
kind is recorded once before it is measured. "first" is what that takes, with the memory and the files of the session
that just began. "scrub" is what a look for secrets costs: the same events with it and without it in the same round,
beside what `str.encode` takes to copy such a text.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sink import sink
from throughput import threads_behind

import micromegas as mm

LIMIT_NS = 100
EVENTS = 100_000
STEP = 2_000
WORDS = ("order", "customer", "shipped", "pending", "warehouse", "retry", "invoice", "answer", "queue", "worker")
USERS = [f"user-{number * 7919 % 10_000}" for number in range(10_007)]
TEXTS = [
    " ".join(WORDS[(number * 31 + place * (number % 7 + 3)) % len(WORDS)] for place in range(9)) + f" {number:>6}"
    for number in range(10_007)
]
Leave = Callable[[int, int], None]


def literal(first: int, last: int) -> None:
    info = mm.log.info
    for _ in range(first, last):
        info("ready for the next request")


def integer(first: int, last: int) -> None:
    info = mm.log.info
    for number in range(first, last):
        info("request %d is done", number)


def text(first: int, last: int) -> None:
    info = mm.log.info
    for number in range(first, last):
        info("request of %s is done", USERS[number % 10_007])


def integer_and_text(first: int, last: int) -> None:
    info = mm.log.info
    for number in range(first, last):
        info("request took %d us for %s", number, USERS[number % 10_007])


def formatted(first: int, last: int) -> None:
    info = mm.log.info
    for number in range(first, last):
        info(TEXTS[number % 10_007])


def tagged(first: int, last: int) -> None:
    info = mm.log.info
    for number in range(first, last):
        info("request %d is done", number, shop="north", till=number & 15)


def measure(first: int, last: int) -> None:
    record = mm.metric("measure", "count").record
    for number in range(first, last):
        record(number * 7919 & 0xFFFF)


def span(first: int, last: int) -> None:
    work = mm.span("work")
    for _ in range(first, last, 2):
        with work:
            pass


KINDS: dict[str, Leave] = {
    "log, a literal": literal,
    "log, an integer": integer,
    "log, a short text": text,
    "log, an integer and a short text": integer_and_text,
    "log, a text of 70 characters": formatted,
    "log, an integer, two properties": tagged,
    "measure": measure,
    "span event": span,
}
SCRUBBED = ("log, an integer", "log, a short text", "log, a text of 70 characters")


def behind_ns(leave: Leave, url: str, scrub: bool) -> tuple[float, float]:
    """CPU time of the threads behind, per event: of a session's first events, and of those that follow."""
    mm.init(url=url, scrub=scrub, system_metrics=False, encoding="columns")
    leave(0, STEP)
    mm.flush()
    spent = []
    for begin in (0, EVENTS):
        before = sum(threads_behind().values())
        for first in range(begin, begin + EVENTS, STEP):
            leave(first, first + STEP)
            time.sleep(0.001)
        mm.flush()
        spent.append((sum(threads_behind().values()) - before) / EVENTS * 1e9)
    mm.shutdown()
    return spent[0], spent[1]


def encode_ns() -> float:
    """Of one text of 70 characters, the loop included."""
    before = time.thread_time()
    for number in range(EVENTS):
        TEXTS[number % 10_007].encode()
    return (time.thread_time() - before) / EVENTS * 1e9


def print_times(rounds: int) -> bool:
    best: dict[tuple[str, bool], float] = {}
    first: dict[str, float] = {}
    copying = float("inf")
    with sink() as server:
        for _ in range(rounds):
            copying = min(copying, encode_ns())
            for name, leave in KINDS.items():
                for scrub in (True, False) if name in SCRUBBED else (True,):
                    begun, spent = behind_ns(leave, server.url, scrub)
                    best[name, scrub] = min(best.get((name, scrub), spent), spent)
                    first[name] = min(first.get(name, begun), begun)
    print(f"CPU time of the threads behind, ns an event, best of {rounds}; limit {LIMIT_NS}")
    for name in KINDS:
        spent = best[name, True]
        verdict = "OK" if spent <= LIMIT_NS else "over"
        print(f"{name:<34}{spent:>8.0f}  {verdict:<6}first {first[name]:>4.0f}{scrub_note(best, name)}")
    print(f"{'str.encode of 70 characters':<34}{copying:>8.0f}")
    return all(best[name, True] <= LIMIT_NS for name in KINDS)


def scrub_note(best: dict[tuple[str, bool], float], name: str) -> str:
    return f"   scrub {best[name, True] - best[name, False]:+.0f}" if name in SCRUBBED else ""


def run_counted(name: str, events: int, scrub: bool) -> None:
    """Under callgrind, which does not follow the server's process."""
    leave = KINDS[name]
    with sink() as server:
        mm.init(url=server.url, encoding="columns", flush_period=3600, scrub=scrub, system_metrics=False)
        for first in range(0, events, STEP):
            leave(first, first + STEP)
        mm.shutdown(60)
    sys.exit(0)


def counted(name: str, events: int, scrub: bool) -> int:
    """Instructions of all threads but the first."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", "-q", "--separate-threads=yes"]
        program = [sys.executable, __file__, "--run", name, "--events", str(events)]
        subprocess.run(
            [*valgrind, f"--callgrind-out-file={folder}/out", *program, *([] if scrub else ["--no-scrub"])],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            timeout=300,
            check=True,
        )
        totals = 0
        for path in Path(folder).iterdir():
            if (match := re.fullmatch(r"out-(\d+)", path.name)) and int(match[1]) > 1:
                total = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
                totals += int(total[1]) if total else 0
        return totals


def print_instructions() -> None:
    if not shutil.which("valgrind"):
        raise SystemExit("no valgrind here")
    few, many = 10_000, 40_000
    print("instructions of the threads behind, an event")
    for name in KINDS:
        best: dict[tuple[str, bool], float] = {}
        for scrub in (True, False) if name in SCRUBBED else (True,):
            best[name, scrub] = (counted(name, many, scrub) - counted(name, few, scrub)) / (many - few)
        print(f"{name:<34}{best[name, True]:>8.0f}{scrub_note(best, name)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instructions", action="store_true", help="count machine instructions by callgrind")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--no-scrub", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_counted(options.run, options.events, not options.no_scrub)
    if options.instructions:
        print_instructions()
        return 0
    return not print_times(options.rounds)


if __name__ == "__main__":
    sys.exit(main())
