"""How far an answer has come, told while it comes in."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Progress:
    """What has come of an answer: `rows`, `size` in bytes of memory, and the `seconds` since it was asked for."""

    rows: int
    size: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.size / 1e6:,.1f} MB, {self.seconds:.1f} s"


OnProgress = Callable[[Progress], None]


class Counting:
    """Counts the batches of one answer and tells of them."""

    def __init__(self, tell: OnProgress) -> None:
        self._tell = tell
        self._begin = time.monotonic()
        self._rows = 0
        self._size = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._rows += batch.num_rows
        self._size += batch.nbytes
        self._tell(Progress(self._rows, self._size, time.monotonic() - self._begin))


class ProgressLine:
    """Rewrites one line of stderr a few times a second. A context manager: the line is gone at its end."""

    _PERIOD_S = 0.2

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= self._PERIOD_S:
            self._told = now
            self._write(str(progress))

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text:<{self._width}}" if text else f"\r{'':<{self._width}}\r")
        sys.stderr.flush()
        self._width = len(text)
