"""The environment of the query engine's library, which it must still read: nothing fails when it does not."""

import subprocess
import sys

PROGRAM = """
import time
from pathlib import Path
from micromegas.cli.engine_process import prepare_engine_process
prepare_engine_process()
from datafusion import SessionContext
SessionContext().sql("SELECT 1").collect()
print(Path("/proc/self/status").read_text())
def names():
    return [thread.joinpath("comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
# a thread takes its name once it runs
deadline = time.monotonic() + 20
while sum(name.startswith("tokio") for name in names()) < 8 and time.monotonic() < deadline:
    time.sleep(0.01)
print(*names(), sep="\\n")
"""


def test_the_library_reads_the_environment_that_a_server_sets() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert "THP_enabled:\t0" in lines
    assert sum(line.startswith("tokio") for line in lines) == 8
