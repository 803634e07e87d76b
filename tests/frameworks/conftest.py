"""An environment with web frameworks and OpenTelemetry's instrumentations, and applications run in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kept import python_with
from record.conftest import Captured, CaptureServer
from spools import spool_below

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def frameworks_python() -> Path:
    lines = (HERE / "packages.txt").read_text(encoding="utf-8").splitlines()
    return python_with("frameworks", [line for line in lines if not line.startswith("#")], HERE / "constraints.txt")


@pytest.fixture(autouse=True)
def own_spool(tmp_path: Path) -> Iterator[None]:
    """No application finds what the one of another test left."""
    with spool_below(tmp_path / "state"):
        yield


@pytest.fixture
def run_app(frameworks_python: Path, tmp_path: Path) -> Iterator[Callable[..., Captured]]:
    """Runs an application of `apps/` with the recorder; gives what arrived from it."""
    server = CaptureServer()

    def run(name: str, *arguments: str) -> Captured:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MICROMEGAS_", "OTEL_"))}
        done = subprocess.run(
            [str(frameworks_python), str(HERE / "apps" / f"{name}.py"), *arguments],
            env=inherited | {"MICROMEGAS_TELEMETRY_URL": server.url, "PYTHONPATH": str(ROOT / "src")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return server.captured

    yield run
    server.close()
