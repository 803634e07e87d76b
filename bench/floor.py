"""Compiles bench/floor.c for the interpreter that runs, and gives the module: the floor beside which events are timed.

The compiled file is kept under the system's temporary folder, by the text of its sources. Must never be needed by the
product, nor run in its build.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
RECORDER = HERE.parent / "native" / "core" / "csrc"
FLAGS = ["-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-plt", "-Wall", "-Wextra", "-Werror"]


def floor() -> ModuleType:
    """The module of floor.c. Errors: CalledProcessError when there is no C compiler, or it does not like the source."""
    path = _compiled()
    spec = importlib.util.spec_from_file_location("floor", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compiled() -> Path:
    sources = [HERE / "floor.c", RECORDER / "clock.c"]
    digest = hashlib.sha256(str(RECORDER).encode())
    for source in [*sources, RECORDER / "clock.h", RECORDER / "buffer.h", RECORDER / "record.h"]:
        digest.update(source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"micromegas-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    path = folder / f"floor-{digest.hexdigest()[:16]}{suffix}"
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        headers = [f"-I{sysconfig.get_path('include')}", f"-I{RECORDER}"]
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, *FLAGS, *headers, *map(str, sources), "-o", str(fresh)], check=True)
        fresh.rename(path)
    return path
