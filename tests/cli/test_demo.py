"""`make demo` ends by itself, and each of its three questions has an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_demo_answers_three_questions_and_ends(tmp_path: Path) -> None:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), str(tmp_path / "lake")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=inherited,
    )
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.endswith((" row", " rows"))]
    assert len(answers) == 3, done.stdout
    assert "0 rows" not in answers
    assert "grpc://127.0.0.1:" in done.stdout
    assert "http://127.0.0.1:" in done.stdout
