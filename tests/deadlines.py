"""Processes of tests that don't live longer than they may."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is killed at the end if it still runs: `Popen` alone would wait for one that hangs, and the test
    that found it out with it."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def killed_after(process: subprocess.Popen[Any], seconds: float) -> Iterator[None]:
    """Within, whoever waits for a line that the process never prints reads its end instead."""
    deadline = threading.Timer(seconds, process.kill)
    deadline.start()
    try:
        yield
    finally:
        deadline.cancel()
