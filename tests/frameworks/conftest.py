"""An environment with web frameworks and OpenTelemetry's instrumentations, and applications run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from record.conftest import Captured, CaptureServer
from spools import spool_below

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def frameworks_python() -> Path:
    """Python of an environment that holds `packages.txt`; made once, kept in the repository's ignored folder."""
    environment = ROOT / ".venvs" / "frameworks"
    python = environment / "bin" / "python"
    installed = environment / ".installed"
    wanted = (HERE / "packages.txt").read_text(encoding="utf-8") + (HERE / "constraints.txt").read_text(
        encoding="utf-8"
    )
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        files = ["-c", str(HERE / "constraints.txt"), "-r", str(HERE / "packages.txt")]
        subprocess.run([*pip, *files], check=True)
        installed.write_text(wanted, encoding="utf-8")
    return python


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
