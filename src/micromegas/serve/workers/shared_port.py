"""A port that workers have in common, as their supervisor has it: it listens from before the first to after the last of
them, and takes no connection itself."""

from __future__ import annotations

import os

from micromegas.serve.acceptor import Share
from micromegas.serve.connection_counts import Slot, create_counts
from micromegas.serve.ports import listening


class SharedPort:
    """`port` is the bound one. What comes before a worker is there waits for it."""

    def __init__(self, host: str, port: int) -> None:
        """`port` 0 takes a free one. Raises `OSError` when it can't be had."""
        self._listeners = listening(host, port)
        self._counts = create_counts()
        self.port: int = self._listeners[0].getsockname()[1]

    def share(self, slot: int) -> Share:
        """For a worker that inherits its descriptors."""
        return Share(tuple(listener.fileno() for listener in self._listeners), self._counts, slot)

    def connections(self, slot: int) -> int | None:
        """Of the worker with this slot; None when it takes none."""
        return Slot(self._counts, slot).count

    def free(self, slot: int) -> None:
        """After its worker is gone, whatever it died of."""
        Slot(self._counts, slot).count = None

    def stop(self) -> None:
        """Who asks is refused once no worker listens any more, either."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def close(self) -> None:
        """After the last worker."""
        self.stop()
        os.close(self._counts)
