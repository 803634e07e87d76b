"""What tests install or compile once and keep: folders of the repository that git ignores.

Several workers of a run, or several runs, may want the same: whoever comes first makes it, the others wait.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_KEPT = Path(__file__).resolve().parents[1] / ".venvs"
_INSTALL_TIMEOUT_S = 540.0


@contextmanager
def kept(name: str) -> Iterator[Path]:
    """The folder of this name, perhaps still to be made; nobody else makes it meanwhile."""
    _KEPT.mkdir(exist_ok=True)
    with (_KEPT / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _KEPT / name


def python_with(name: str, packages: Sequence[str], constraints: Path) -> Path:
    """Python of the virtual environment of this name, which holds the packages."""
    with kept(name) as environment:
        python = environment / "bin" / "python"
        installed = environment / ".installed"
        wanted = "\n".join([*packages, constraints.read_text(encoding="utf-8")])
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            subprocess.run([*pip, "-c", str(constraints), *packages], check=True, timeout=_INSTALL_TIMEOUT_S)
            installed.write_text(wanted, encoding="utf-8")
    return python
