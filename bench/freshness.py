"""How long after it happened an event is in SQL's answers, and in a partition, while a server has other work to do.

    python bench/freshness.py [--events 100] [--processes 4] [--rate 2000]

A program with the recorder logs one event at a time and flushes; beside it `--processes` others log `--rate` events a
second each, at the recorder's own rhythm, into the same `micromegas serve` with its daemon. Prints p50, p95 and the
worst, in ms of wall time since the call that logged it:

- *tail*: until the answer of a query, asked when the flush was acknowledged, that must hold it;
- *daemon*: until `list_partitions()` tells of its row;
- *unflushed*: until an answer holds an event of a program that never flushes, with queries asked one after the other;

and beside them, of the same run, what of it is the query: the same statement over an empty range. All on one machine's
two cores, so times of the server and of its load are in it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e.serving import ALL_TIME, serving

from micromegas.client import Client
from micromegas.config import LakeSettings

AIM_MS = {"tail": 200.0, "daemon": 2000.0}
EMPTY_RANGE = ("1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z")
PATIENCE_S = 30.0
ONE_AT_A_TIME = """
import sys
import micromegas as mm
mm.init(url=sys.argv[1])
for line in sys.stdin:
    mm.log.info("event %s", line.strip(), target="asked")
    assert mm.flush(10)
    print("sent", flush=True)
"""
STEADY = """
import sys, time
import micromegas as mm
mm.init(url=sys.argv[1])
pause = 10 / float(sys.argv[2])
number = 0
while True:
    for _ in range(10):
        number += 1
        mm.log.info("request %d took %d ms", number, number % 97, target="steady")
    time.sleep(pause)
"""
ASKED = (
    "SELECT count(*) AS n, arrow_cast(max(insert_time), 'Int64') AS inserted FROM log_entries WHERE target = 'asked'"
)
BUILT = """
SELECT count(*) AS n FROM list_partitions()
WHERE view_set_name = 'log_entries' AND view_instance_id = 'global'
AND arrow_cast(begin_insert_time, 'Int64') <= {0} AND arrow_cast(end_insert_time, 'Int64') > {0}
"""
NEWEST = "SELECT arrow_cast(max(time), 'Int64') AS newest FROM log_entries WHERE target = 'steady'"


def program(source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def flushed_events(client: Client, url: str, count: int) -> dict[str, list[float]]:
    """Wall seconds of each event until the answer and until the partition, and of the statement over an empty range."""
    found: dict[str, list[float]] = {"tail": [], "daemon": [], "query alone": []}
    with program(ONE_AT_A_TIME, url) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        for number in range(count):
            begun = time.perf_counter()
            print(number, file=sender.stdin, flush=True)
            if sender.stdout.readline() != "sent\n":
                raise RuntimeError("the sender of single events ended")
            [answer] = client.query(ASKED, *ALL_TIME).to_pylist()
            found["tail"].append(time.perf_counter() - begun)
            if answer["n"] != number + 1:
                raise AssertionError(f"an acknowledged event is missing: {answer['n']} of {number + 1}")
            built = BUILT.format(answer["inserted"])
            deadline = begun + PATIENCE_S
            while client.query(built)["n"].to_pylist() == [0]:
                if time.perf_counter() > deadline:
                    raise TimeoutError("no partition holds the event")
            found["daemon"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            client.query(ASKED, *EMPTY_RANGE)
            found["query alone"].append(time.perf_counter() - begun)
        sender.stdin.close()
    return found


def unflushed_events(client: Client, seconds: float) -> list[float]:
    """Seconds from the newest event's own time to the answers that held it, one query after the other."""
    found = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        [newest] = client.query(NEWEST, *ALL_TIME)["newest"].to_pylist()
        if newest is not None:
            found.append((time.time_ns() - newest) / 1e9)
    return found


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rate", type=int, default=2000)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm-bench-")))
        service = stack.enter_context(serving(LakeSettings(lake_dir=folder / "lake"), "serve"))
        client = stack.enter_context(Client(f"grpc://127.0.0.1:{service.flight_port}"))
        url = f"http://127.0.0.1:{service.http_port}"
        for _ in range(options.processes):
            steady = stack.enter_context(program(STEADY, url, str(options.rate)))
            stack.callback(steady.kill)
        found = flushed_events(client, url, options.events)
        found["unflushed"] = unflushed_events(client, 10.0)
    print(f"beside {options.processes} processes with {options.rate} events a second each; ms since the event")
    print(f"{'':<12}{'p50':>8}{'p95':>8}{'worst':>8}{'aim of p95':>12}")
    within = True
    for name, seconds in found.items():
        p95 = 1000 * quantile(seconds, 0.95)
        aim = AIM_MS.get(name)
        within &= aim is None or p95 <= aim
        print(
            f"{name:<12}{1000 * statistics.median(seconds):8.0f}{p95:8.0f}{1000 * max(seconds):8.0f}"
            f"{'' if aim is None else format(aim, '12.0f')}"
        )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
