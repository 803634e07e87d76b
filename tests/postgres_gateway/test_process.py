"""`micromegas pg-gateway` as a process: what it prints, and that nothing of it outlives it, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from e2e.posting import wait_until

from micromegas.serve.postgres import shadow
from micromegas.serve.postgres.shadow import ShadowPostgres


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that the catalogue's account can enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="mmgw-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def started(scratch: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A gateway that is ready, and its port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "micromegas", *arguments, "--lake", str(scratch / "lake")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment | {"TMPDIR": str(scratch)},
    )
    port = 0
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("postgresql"):
            port = int(line.rsplit(":", 1)[1])
        if line.startswith("ready"):
            break
    return process, port


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(scratch: Path, how: signal.Signals) -> None:
    process, port = started(scratch, "pg-gateway", "--pg-port", "0")
    with psycopg.connect(f"host=127.0.0.1 port={port} user=x dbname=micromegas") as connection:
        assert connection.execute("SELECT count(*) FROM log_entries").fetchone() == (0,)
        (catalogue,) = scratch.glob("mm-catalogue-*")
        postmaster = int((catalogue / "data" / "postmaster.pid").read_text().split()[0])
        process.send_signal(how)
        assert process.wait(60) == (0 if how is signal.SIGTERM else -how)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    wait_until(lambda: not catalogue.exists(), "the catalogue's folder is gone")
    wait_until(lambda: not Path(f"/proc/{postmaster}").exists(), "its PostgreSQL is gone")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_catalogue_that_hangs_is_ended_with_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_STOP_TIMEOUT_S", 0.5)
    catalogue = ShadowPostgres(1)
    catalogue.start([], {})
    home = Path(catalogue.socket_path).parent
    postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    catalogue.stop()
    wait_until(lambda: not is_running(postmaster), "its PostgreSQL is gone")
    assert not home.exists()


def test_it_is_a_role_of_serve(scratch: Path) -> None:
    process, port = started(scratch, "serve", "--http-port", "0", "--flight-port", "0", "--pg-port", "0")
    try:
        with psycopg.connect(f"host=127.0.0.1 port={port} user=x dbname=micromegas") as connection:
            assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (0,)
    finally:
        process.terminate()
        assert process.wait(60) == 0
