"""How many connections each of the processes has that share a port, in memory that all of them see."""

from __future__ import annotations

import mmap
import os

SLOTS = 256
"""One for each process, those about to end and their successors too."""
_BYTES = 4 * SLOTS
_NONE = 2**32 - 1


def create_counts() -> int:
    """A descriptor of such memory, in which nobody takes connections yet."""
    descriptor = os.memfd_create("micromegas-connections")
    os.write(descriptor, _NONE.to_bytes(4, "little") * SLOTS)
    return descriptor


class Slot:
    """The number of one process. `descriptor` stays the caller's."""

    def __init__(self, descriptor: int, number: int) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, _BYTES)).cast("I")
        self._number = number

    @property
    def count(self) -> int | None:
        """None while the process takes no connections."""
        count = self._counts[self._number]
        return None if count == _NONE else count

    @count.setter
    def count(self, count: int | None) -> None:
        self._counts[self._number] = _NONE if count is None else count

    def has_least(self) -> bool:
        """Nobody who takes connections has fewer."""
        least: int = min(self._counts)
        return self._counts[self._number] <= least
