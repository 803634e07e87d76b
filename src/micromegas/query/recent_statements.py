"""What planning told of statements that were asked lately: dashboards and clients send the same ones again and again.

Must never keep what may differ the next time: the time of day, and whatever a table function looks up.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

MAX_STATEMENTS = 500
MAX_TEXT = 10_000

Told = TypeVar("Told")


class RecentStatements(Generic[Told]):
    """By text and rights, the least recently asked dropped first. Thread-safe."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, bool], Told] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, statement: str, *, administers: bool) -> Told | None:
        """What was kept for the statement."""
        key = statement, administers
        with self._guard:
            told = self._told.get(key)
            if told is not None:
                self._told.move_to_end(key)
            return told

    def keep(self, statement: str, told: Told, *, administers: bool) -> None:
        """Statements that are too long to be asked often are not kept."""
        if len(statement) > MAX_TEXT:
            return
        with self._guard:
            self._told[statement, administers] = told
            if len(self._told) > MAX_STATEMENTS:
                self._told.popitem(last=False)
