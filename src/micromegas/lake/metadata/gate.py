"""The gate before an SQLite database: who writes takes a file lock first.

SQLite's own waiting is polling, so a busy writer starves the others for seconds; the kernel's lock queue is fair.
It must never be held while anything but the one write transaction runs.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteGate:
    """An exclusive lock between threads and processes on a side file of the database."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._thread_lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the gate and hold it for the block."""
        with self._thread_lock:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back; the gate can't be used afterwards."""
        os.close(self._descriptor)
