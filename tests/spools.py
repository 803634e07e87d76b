"""Spools of recording programs that belong to a test: in a folder of its own, nothing left in memory afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

BUFFERS = Path(f"/dev/shm/micromegas-{os.geteuid()}")
"""Where recorders keep the buffers of their threads, by process id."""


def forget_buffers(spool: Path) -> None:
    """Remove the buffers of the processes that left something in a spool."""
    for session in spool.glob("*-*"):
        shutil.rmtree(BUFFERS / session.name, ignore_errors=True)


@contextlib.contextmanager
def spool_below(state: Path) -> Iterator[Path]:
    """Recording programs have their spool below that folder, also those that get no variable of ours."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(state))
        spool = state / "micromegas" / "spool"
        yield spool
    forget_buffers(spool)
