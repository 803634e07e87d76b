"""The client as published on PyPI, run in a virtual environment of its own, and the traffic that it is asked about."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deadlines import killed_after

SCENARIOS = ("tiny", "logs", "metrics", "spans", "async")
PINNED_CLIENT = "micromegas==0.32.0"
_DEADLINE_S = 300.0

# Importing the client takes longer than what is asked of it: one process for all scripts, each with names of its own.
_LOOP = """
import contextlib, io, json, sys, traceback
answers = sys.stdout
for line in sys.stdin:
    printed, failed = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), file=answers, flush=True)
"""


class PublishedPackage:
    """Runs scripts with the package as published on PyPI. A context manager."""

    def __init__(self, python: Path, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [str(python), "-I", "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def run(self, script: str) -> str:
        """What a script prints; its errors fail the test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with killed_after(self._process, _DEADLINE_S):
            print(json.dumps(script), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        assert answer, f"the package gave no answer, within {_DEADLINE_S:g} s or before it ended"
        printed, failed = json.loads(answer)
        assert failed is None, failed
        return str(printed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class PublishedClient:
    """The published client, connected to a server."""

    package: PublishedPackage
    address: str

    def run(self, script: str) -> str:
        """What a script prints, in which `client` is the client."""
        prelude = f"import micromegas.flightsql.client as m\nclient = m.FlightSQLClient({self.address!r})\n"
        return self.package.run(prelude + script)
