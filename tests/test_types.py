"""Types as users see them: decorators keep signatures, misuse is refused, stubs tell what the native modules hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TYPES = Path(__file__).parent / "types"

pytest.importorskip("mypy", reason="mypy is not installed")


def run(*arguments: str, cwd: Path) -> str:
    environment = os.environ | {"MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def test_a_users_program_and_misuse_in_mypy(tmp_path: Path) -> None:
    """`--strict` also refuses a `type: ignore` that hides nothing, so each misuse must be one."""
    files = [str(TYPES / name) for name in ("user_program.py", "misuse.py")]
    cache = ("--cache-dir", str(tmp_path))
    run("mypy", "--strict", "--config-file=", "--python-version=3.11", *cache, *files, cwd=tmp_path)


@pytest.mark.parametrize("module", ["micromegas._core", "micromegas._engine", "micromegas._transport"])
def test_stubs_hold_what_the_native_modules_hold(module: str, tmp_path: Path) -> None:
    lines = (TYPES / "stubtest_allowlist.txt").read_text(encoding="utf-8").splitlines()
    mine = tmp_path / "allowlist"
    mine.write_text("\n".join(line for line in lines if module.replace(".", "\\.") in line), encoding="utf-8")
    run("mypy.stubtest", module, "--allowlist", str(mine), cwd=tmp_path)
