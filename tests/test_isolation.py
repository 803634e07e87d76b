"""Tests leave the user's own things alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from spools import BUFFERS

PROGRAM = """
import micromegas as mm
mm.init(url="http://127.0.0.1:9")
mm.log.info("x")
print(mm.status()["spool"], flush=True)
__import__("os").kill(__import__("os").getpid(), 9)
"""


@pytest.fixture(scope="module")
def left() -> Path:
    """The spool folder of a program that died, started with no variable of ours, as by fixtures of any scope."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited, capture_output=True, text=True, timeout=60, check=False
    )
    return Path(done.stdout.strip())


def test_programs_write_into_no_spool_of_the_user(left: Path, spool_of_the_tests: Path) -> None:
    assert left.parent == spool_of_the_tests
    assert not left.is_relative_to(Path.home() / ".local")
    assert (left / "journal").stat().st_size > 0
    assert (BUFFERS / left.name).is_dir() or any(left.glob("buffer-*"))
