"""Whether work goes on for queries that were cut off.

The engine can't be asked: some operators (joins without a key above all) compute for minutes between two looks at
whether anybody still wants their rows. But a thread that does so is at work whenever one looks, while a thread that
serves others waits now and then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from micromegas.query.work_in_hand import Piece, WorkInHand

LOOK_S = 0.1
_MIN_LOOKS = 15
_CALM_LOOKS = 2
"""A page fault or a full allocator makes a thread wait that is far from its end, but not often."""
_PLANNING_GRACE_S = 5.0
_THREADS = Path("/proc/self/task")


@dataclass(slots=True)
class _Watched:
    """Threads that were at work when the query was cut off, and in how many of the looks since."""

    looks: int = 0
    at_work: dict[int, int] = field(default_factory=dict)

    def look(self, now_at_work: frozenset[int]) -> None:
        if self.looks == 0:
            self.at_work = dict.fromkeys(now_at_work, 0)
        self.looks += 1
        for thread in self.at_work.keys() & now_at_work:
            self.at_work[thread] += 1

    @property
    def is_over(self) -> bool:
        """Every thread has waited for something since then."""
        return all(self.looks - count >= _CALM_LOOKS for count in self.at_work.values())


class Remains:
    """`look()` is to be called every `LOOK_S` seconds. `clock`: as the engine's, monotonic seconds."""

    def __init__(
        self,
        work: WorkInHand,
        clock: Callable[[], float],
        threads_at_work: Callable[[], frozenset[int]] | None = None,
    ) -> None:
        self._work = work
        work.watch()
        self._clock = clock
        self._threads_at_work = threads_at_work or engine_threads_at_work
        self._watched: dict[Piece, _Watched] = {}

    def look(self) -> str | None:
        """Why this process should end, if it should: nobody waits for what it computes, or the time of that is up."""
        pieces = self._work.pieces_cut
        self._watched = {piece: self._watched.get(piece) or _Watched() for piece in pieces}
        if not pieces:
            return None
        now, at_work = self._clock(), self._threads_at_work()
        for piece, watched in self._watched.items():
            if not piece.is_planned:
                if now > piece.deadline + _PLANNING_GRACE_S:
                    return "the planning of a query goes on after its time limit"
                continue
            watched.look(at_work)
            if watched.is_over:
                if watched.looks >= _CALM_LOOKS:
                    self._work.settle(piece)
            elif watched.looks >= _MIN_LOOKS and (self._work.running == 0 or now >= piece.deadline):
                return "a query that was ended goes on computing"
        return None


def engine_threads_at_work() -> frozenset[int]:
    """Threads of this process that are not Python's and run, or could."""
    ours = {thread.native_id for thread in threading.enumerate()}
    found = set()
    for entry in _THREADS.iterdir():
        # it may end between two lines
        with suppress(OSError):
            if (thread := int(entry.name)) not in ours and _state(entry) in ("R", "D"):
                found.add(thread)
    return frozenset(found)


def _state(thread: Path) -> str:
    with open(thread / "stat", encoding="utf-8", errors="replace") as file:
        # the name may hold anything, parentheses too
        return file.read().rpartition(")")[2].split()[0]
