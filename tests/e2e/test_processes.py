"""Families of processes, from their recording to SQL: who begot whom, who crashed, and what each told."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from e2e.answers import records
from e2e.serving import serving

from micromegas.config import LakeSettings

PROGRAM = """
import ctypes, multiprocessing, os, threading
import micromegas as mm

def work(method):
    mm.log.info("worker by %s", method)

def fail():
    raise LookupError("nothing there")

if __name__ == "__main__":
    mm.init(process_name="family")
    for method in ("fork", "spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=work, args=(method,))
        process.start()
        process.join()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    if os.fork() == 0:
        ctypes.string_at(0)
    os.wait()
"""


def test_a_family_in_sql(folder_lake: LakeSettings, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
    with serving(folder_lake) as service:
        environment = inherited | {"MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}"}
        subprocess.run([sys.executable, str(program)], env=environment, timeout=120, check=True)
        processes = records(service.query("SELECT process_id, parent_process_id, exe FROM processes", ranged=True))
        logs = records(service.query("SELECT process_id, level, msg FROM log_entries", ranged=True))
    [root] = [row["process_id"] for row in processes if not row["parent_process_id"]]
    assert {row["exe"] for row in processes} == {"family"}
    assert sorted(row["parent_process_id"] for row in processes) == ["", *(4 * [root])]
    told = {row["msg"].splitlines()[0].partition(" at address")[0]: row for row in logs}
    assert set(told) == {
        *(f"worker by {method}" for method in ("fork", "spawn", "forkserver")),
        "unhandled exception in thread Thread-1 (fail)",
        "killed by signal 11 (SIGSEGV, segmentation fault)",
    }
    assert told["killed by signal 11 (SIGSEGV, segmentation fault)"]["level"] == 1
    assert told["unhandled exception in thread Thread-1 (fail)"]["process_id"] == root
    assert len({row["process_id"] for row in logs}) == 5
