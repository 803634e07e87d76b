"""Which queries of an engine run, and which were cut off: some operators never look whether anybody still wants their
rows, so that the work of those may go on. It must never end anything itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Piece:
    """The work of one query. `deadline`: monotonic seconds at which its time is up; `planned`: set once no thread plans
    it any more, where it was cut off while one did. It must never hold what was planned, which would go on with it."""

    deadline: float
    planned: threading.Event | None = None

    @property
    def is_planned(self) -> bool:
        """No thread of the planner is at work for it."""
        return self.planned is None or self.planned.is_set()


class WorkInHand:
    """Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[Piece] = set()
        self._cut: set[Piece] = set()
        self._is_watched = False

    def watch(self) -> None:
        """What is cut off from now on is kept until it is settled, which is up to the caller."""
        self._is_watched = True

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
                if self._is_watched:
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
        """Those that were cut off and not settled; none where nobody watches."""
        with self._guard:
            return list(self._cut)
