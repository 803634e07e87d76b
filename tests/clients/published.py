"""The client as published on PyPI, run in a virtual environment of its own, and the traffic that it is asked about."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = ("tiny", "logs", "metrics", "spans", "async")
PINNED_CLIENT = "micromegas==0.32.0"


@dataclass(frozen=True, slots=True)
class PublishedClient:
    """Runs scripts with the client as published on PyPI, in a virtual environment of its own."""

    python: Path
    address: str

    def run(self, script: str) -> str:
        """What a script prints; `client` is a connected client in it. Its errors fail the test."""
        prelude = f"import micromegas.flightsql.client as m\nclient = m.FlightSQLClient({self.address!r})\n"
        done = subprocess.run(
            [str(self.python), "-I", "-c", prelude + script], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
