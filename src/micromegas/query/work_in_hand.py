"""Which queries of an engine run, and which were cut off: some operators never look whether anybody still wants their
rows, so that the work of those may go on. It must never end anything itself."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Piece:
    """The work of one query. `deadline`: monotonic seconds at which its time is up; `planning`: what a thread still
    does for it, where it was cut off while that was at work."""

    deadline: float
    planning: Future[Any] | None = None

    @property
    def is_planned(self) -> bool:
        """No thread of the planner is at work for it."""
        return self.planning is None or self.planning.done()


class WorkInHand:
    """Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[Piece] = set()
        self._cut: set[Piece] = set()

    def begin(self, deadline: float) -> Piece:
        piece = Piece(deadline)
        with self._guard:
            self._running.add(piece)
        return piece

    def finish(self, piece: Piece) -> None:
        """It came to its end by itself."""
        with self._guard:
            self._running.discard(piece)

    def cut(self, piece: Piece) -> None:
        """It was told to end, by whomever; nothing for one that had ended already."""
        with self._guard:
            if piece in self._running:
                self._running.remove(piece)
                self._cut.add(piece)

    def settle(self, piece: Piece) -> None:
        """It was cut off, and its work has ended."""
        with self._guard:
            self._cut.discard(piece)

    @property
    def running(self) -> int:
        """How many queries run that somebody waits for."""
        return len(self._running)

    @property
    def pieces_cut(self) -> list[Piece]:
        """Those that were cut off and not settled."""
        with self._guard:
            return list(self._cut)
