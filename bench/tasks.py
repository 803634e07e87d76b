"""What `with span:` costs around an `await`, by how many asyncio tasks have one open at the same time.

    python bench/tasks.py

Every task opens the span, lets all others go on (`asyncio.sleep(0)`), and leaves it, again and again. Beside it the
same tasks without the span, in the same run; what is left is the span's two events, found again in a context that is
not the one asked about last. Best of five.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

from sink import sink

import micromegas as mm

SPAN = mm.span("waits")
EVENTS = 100_000


async def bare(rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


async def traced(rounds: int) -> None:
    for _ in range(rounds):
        with SPAN:
            await asyncio.sleep(0)


async def together(task: Callable[[int], Coroutine[None, None, None]], tasks: int) -> None:
    await asyncio.gather(*(task(EVENTS // tasks) for _ in range(tasks)))


def nanoseconds(task: Callable[[int], Coroutine[None, None, None]], tasks: int) -> float:
    """Of one round of one task."""
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter_ns()
        asyncio.run(together(task, tasks))
        best = min(best, time.perf_counter_ns() - begin)
    return best / EVENTS


def main() -> None:
    with sink() as server:
        mm.init(url=server.url, flush_period=3600, buffer_bytes=256 << 20)
        print(f"{'tasks':>8}{'bare ns':>10}{'with ns':>10}{'the span':>10}{'ratio':>8}")
        for tasks in (1, 10, 100, 1_000, 10_000):
            without, with_span = nanoseconds(bare, tasks), nanoseconds(traced, tasks)
            added, ratio = with_span - without, with_span / without
            print(f"{tasks:8}{without:10.0f}{with_span:10.0f}{added:10.0f}{ratio:8.2f}")
        mm.shutdown()


if __name__ == "__main__":
    main()
