"""A program that records numbered events of all kinds in threads, tasks and a forked child, and tells of each after it
was recorded: by the last number of each writer, in a file mapped shared that outlives it. Killed from outside."""

import asyncio
import mmap
import os
import random
import sys
import threading
import time

import micromegas as mm

SLOTS = 8
"""Two threads, one task, and the same three of the child; then what the counter has come to, of both."""


def write(slot: int, told: memoryview, seed: int) -> None:
    metric, span = mm.metric(f"m{slot}"), mm.span(f"s{slot}")
    pace = random.Random(seed * 100 + slot)
    number = 0
    while True:
        mm.log.info("%d of %d", number, slot)
        metric.record(number)
        with span:
            pass
        number += 1
        told[slot] = number
        if pace.random() < 0.01:
            time.sleep(pace.random() * 0.01)


async def write_in_task(slot: int, told: memoryview) -> None:
    metric = mm.metric(f"m{slot}")
    number = 0
    while True:
        async with mm.span(f"s{slot}"):
            mm.log.info("%d of %d", number, slot)
            await asyncio.sleep(0)
            metric.record(number)
        number += 1
        told[slot] = number


def count(slot: int, told: memoryview) -> None:
    counter = mm.counter("c")
    number = 0
    while True:
        counter.add(1)
        number += 1
        told[slot] = number
        time.sleep(0.0001)


def main() -> None:
    told_in, seed = sys.argv[1], int(sys.argv[2])
    pace = random.Random(seed)
    with open(told_in, "r+b") as file:
        told = memoryview(mmap.mmap(file.fileno(), 8 * (SLOTS + 2))).cast("q")
    mm.init(flush_period=pace.choice([0.02, 0.1, 60]))
    time.sleep(pace.random() * 0.1)
    first, counter = (0, SLOTS - 2) if os.fork() else (3, SLOTS - 1)
    if first:
        mm.log.info("child")
        told[SLOTS] = os.getpid()
    for slot in (first, first + 1):
        threading.Thread(target=write, args=(slot, told, seed), daemon=True).start()
    threading.Thread(target=count, args=(counter, told), daemon=True).start()
    asyncio.run(write_in_task(first + 2, told))


main()
