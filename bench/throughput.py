"""A million events a second from one process: is anything lost, and what does the thread behind cost?

    python bench/throughput.py [--seconds 5] [--rate 1000000] [--kind metrics|doubles|spans|logs]

The events don't repeat within any block: 200 000 different values, times as they come. "metrics" are those of
bench/encoding.py's frames: sums that grow, gauges that walk, durations with 3 decimals; "doubles" have 53 random bits
each, which no encoding can make fewer. "lost" is what the recorder counts; "arrived" is what the server process counts
(bench/sink.py), what the recorder tells about itself included. Threads behind: their CPU time by /proc. Limits: nothing
lost; 1 % of a core behind per 100 000 events/s; bytes on the wire per event: 4 (metrics), 3 (span events), 9 (logs).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sink import sink

import micromegas as mm

NAMES = 50
VALUES = 200_000
STEP = 0.001
FRAME = 24
WIRE_LIMITS = {"metrics": 4.0, "spans": 3.0, "logs": 9.0}
DOUBLES_FLOOR = (53 + math.log2(NAMES)) / 8
"""Bytes of a random double and of which metric it is of; its time comes on top."""


def threads_behind() -> dict[str, float]:
    """CPU seconds of the threads that Python knows nothing of, by name."""
    known = {str(thread.native_id) for thread in threading.enumerate()}
    seconds: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name not in known:
            with contextlib.suppress(FileNotFoundError):
                name = (task / "comm").read_text().strip()
                on_cpu = int((task / "schedstat").read_text().split()[0]) / 1e9
                seconds[name] = seconds.get(name, 0.0) + on_cpu
    return seconds


def measures(records: list[Callable[[int | float], None]], values: list[int | float]) -> Callable[[int], None]:
    """Again and again."""
    all_records, all_values = itertools.cycle(records), itertools.cycle(values)

    def leave(events: int) -> None:
        for record, value in zip(itertools.islice(all_records, events), all_values, strict=False):
            record(value)

    return leave


def metrics(random: random.Random) -> Callable[[int], None]:
    """In each frame sums that grow, gauges that walk, durations in ms; every other frame leaves some out."""
    declared = [mm.metric(f"measure_{number}", "count") for number in range(FRAME)]
    levels = [random.randrange(1, 1_000_000) for _ in declared]
    records: list[Callable[[int | float], None]] = []
    values: list[int | float] = []
    while len(values) < VALUES:
        for number, metric in enumerate(declared):
            if number % 4 == 3 and random.random() < 0.5:
                continue
            records.append(metric.record)
            if number % 3 == 2:
                values.append(round(random.lognormvariate(1 + number / 12, 0.3), 3))
                continue
            step = random.randrange(20) if number % 3 == 0 else int(random.gauss(0, 50))
            levels[number] = max(0, levels[number] + step)
            values.append(levels[number])
    return measures(records, values)


def doubles(random: random.Random) -> Callable[[int], None]:
    declared = [mm.metric(f"measure_{number}", "count") for number in range(NAMES)]
    records = [metric.record for metric in random.choices(declared, k=VALUES)]
    return measures(records, [random.random() for _ in range(VALUES)])


def spans(random: random.Random) -> Callable[[int], None]:
    declared = itertools.cycle(random.choices([mm.span(f"work {number}") for number in range(NAMES)], k=9973))

    def leave(events: int) -> None:
        for span in itertools.islice(declared, events // 2):
            with span:
                pass

    return leave


def logs(random: random.Random) -> Callable[[int], None]:
    """One integer and one short text each."""
    sites: list[Callable[[int, str], None]] = []
    for number in range(NAMES):
        scope: dict[str, Callable[[int, str], None]] = {}
        exec(f"def site(a, b, info): info('request {number} took %s us for %s', a, b)", scope)
        sites.append(scope["site"])
    info = mm.log.info
    chosen = itertools.cycle(random.choices(sites, k=9973))
    numbers = itertools.cycle([random.randrange(1_000_000) for _ in range(VALUES)])
    users = itertools.cycle([f"user-{random.randrange(10_000)}" for _ in range(VALUES - 1)])

    def leave(events: int) -> None:
        for site, number, user in zip(itertools.islice(chosen, events), numbers, users, strict=False):
            site(number, user, info)  # type: ignore[call-arg]

    return leave


def paced(leave: Callable[[int], None], rate: float, seconds: float) -> tuple[int, float]:
    """Events left, and the seconds that it took."""
    step = int(rate * STEP)
    begin = time.perf_counter()
    events = 0
    while (now := time.perf_counter() - begin) < seconds:
        behind = int(now * rate) - events
        if behind >= step:
            leave(step)
            events += step
        else:
            time.sleep(STEP)
    return events, time.perf_counter() - begin


def verdict(holds: bool) -> str:
    return "OK" if holds else "over"


def wire_note(kind: str, bytes_each: float) -> str:
    if kind not in WIRE_LIMITS:
        return f"floor {DOUBLES_FLOOR:.2f} without the time"
    return f"limit {WIRE_LIMITS[kind]:g}  {verdict(bytes_each <= WIRE_LIMITS[kind])}"


KINDS = {"metrics": metrics, "doubles": doubles, "spans": spans, "logs": logs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, default="metrics")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with sink() as server:
        mm.init(url=server.url)
        leave = KINDS[options.kind](random.Random(options.seed))
        leave(10_000)
        mm.flush()
        before, behind_before, own_before = mm.status() or {}, threads_behind(), time.thread_time()
        arrived_before = server.counts()["events"]
        events, seconds = paced(leave, options.rate, options.seconds)
        own = time.thread_time() - own_before
        has_arrived = mm.flush(60)
        behind = threads_behind()
        after = mm.status() or {}
        arrived = server.counts()["events"] - arrived_before
        lost = int(str(after["lost_events"])) - int(str(before["lost_events"]))
        wire = int(str(after["sent_bytes"])) - int(str(before["sent_bytes"]))
        share = sum(behind.values()) - sum(behind_before.values())
        per_100k = share / events * 100_000
        told = ", ".join(f"{name} {value - behind_before.get(name, 0.0):.2f} s" for name, value in behind.items())
        print(f"{options.kind}: {events} events in {seconds:.1f} s ({events / seconds:,.0f}/s), seed {options.seed}")
        print(f"lost: {lost}, arrived: {arrived}  {verdict(has_arrived and lost == 0 and arrived >= events)}")
        print(
            f"the program's thread: {own / seconds:.1%} of a core, {own / events * 1e9:.0f} ns an event with its loop"
        )
        print(f"behind, in all: {told}")
        print(f"behind, per 100 000 events/s: {per_100k:.2%} of a core, limit 1 %  {verdict(per_100k <= 0.01)}")
        print(f"wire: {wire / events:.2f} bytes an event, {wire_note(options.kind, wire / events)}")
        mm.shutdown()


if __name__ == "__main__":
    main()
