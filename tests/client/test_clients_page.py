"""What docs/clients.md shows of our client and of HTTP runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e.recordings import recording
from e2e.serving import Service

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
# what other clients do is shown by tests/clients
TEXT = PAGE.read_text(encoding="utf-8").partition("\n## Flight SQL\n")[0]
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
CALLS = [line for line in TEXT.splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_python(service: Service, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    if "localhost:50051" not in EXAMPLES[number]:
        monkeypatch.setattr("micromegas.client.connecting.DEFAULT_ADDRESS", f"grpc://127.0.0.1:{service.flight_port}")
    exec(EXAMPLES[number].replace("localhost:50051", f"127.0.0.1:{service.flight_port}"), {"__name__": "__main__"})


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_curl(service: Service, tmp_path: Path, number: int) -> None:
    (process_id,) = recording("spans").processes
    command = CALLS[number].replace("localhost:3000", f"127.0.0.1:{service.api_port}")
    command = command.replace("PROCESS", process_id).replace("begin=-1h", "begin=-36500d")
    done = subprocess.run(
        [*shlex.split(command), "--silent", "--fail-with-body"],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout or any(file.stat().st_size > 100 for file in tmp_path.iterdir())


def test_there_is_something_to_run() -> None:
    assert len(EXAMPLES) >= 3
    assert len(CALLS) >= 3
