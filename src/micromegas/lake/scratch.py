"""Private temporary folders of a process, and wiping those of processes that were killed.

It must never touch a folder whose process lives, in whatever container: a lock on the folder tells, not a number.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "micromegas-scratch-"


class Scratch:
    """A folder below `base` (None: that of the system for temporary files), locked as long as its process lives.

    It is made when it is first needed, after wiping what dead processes left beside it. Thread-safe.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = base
        self._guard = threading.Lock()
        self._folder: Path | None = None
        self._lock = -1

    def prepare(self) -> Path:
        """The folder itself, made by now."""
        with self._guard:
            if self._folder is None:
                base = Path(tempfile.gettempdir()) if self._base is None else self._base
                base.mkdir(parents=True, exist_ok=True)
                wipe_left(base)
                self._folder, self._lock = _locked_folder(base)
            return self._folder

    def new_folder(self) -> Path:
        """A folder inside, to be removed by who asked for it."""
        return Path(tempfile.mkdtemp(dir=self.prepare()))

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A folder inside for the length of a block."""
        with tempfile.TemporaryDirectory(dir=self.prepare()) as folder:
            yield Path(folder)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        with self._guard:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                os.close(self._lock)
                self._folder = None


def wipe_left(base: Path) -> int:
    """Remove the folders of dead processes below `base`; returns how many."""
    wiped = 0
    for left in base.glob(f"{PREFIX}*"):
        # Another start may wipe it, too, or it belongs to another user.
        with suppress(OSError):
            lock = _open(left)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                wiped += 1
            finally:
                os.close(lock)
    return wiped


def _locked_folder(base: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).absolute()
        # Between these two lines another start may take it for one that was left.
        with suppress(FileNotFoundError, BlockingIOError):
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(folder).st_ino == os.fstat(lock).st_ino:
                    return folder, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
