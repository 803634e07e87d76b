"""The examples of docs/instrumentation.md and README.md are run, each in a process of its own, and must arrive."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from record.conftest import CaptureServer

import micromegas

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "instrumentation.md"
PAGES = [PAGE, ROOT / "README.md"]
SOURCE = Path(micromegas.__file__).parent
MARKS = {"arrives", "needs", "fragment"}


@dataclass(frozen=True, slots=True)
class Example:
    """A Python block: its page, the line of its fence, the marks of the comments right before it, its text."""

    page: str
    line: int
    marks: dict[str, str]
    text: str

    @property
    def arrives(self) -> list[str]:
        """Texts of which each has to be a message, or the name of a metric or span; or `nothing`."""
        return [text.strip() for text in self.marks.get("arrives", "").split(";") if text.strip()]

    @property
    def needs(self) -> list[str]:
        """Modules without which the block is skipped."""
        return [name.strip() for name in self.marks.get("needs", "").split(",") if name.strip()]


def examples(page: Path) -> Iterator[Example]:
    marks: dict[str, str] = {}
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if mark := re.fullmatch(r"<!-- (\w+): (.+) -->", line):
            marks[mark[1]] = mark[2]
        elif line == "```python":
            body = []
            for _, inner in lines:
                if inner == "```":
                    break
                body.append(inner)
            yield Example(page.name, number, marks, "\n".join(body) + "\n")
            marks = {}
        elif line.strip():
            marks = {}


def names_of_ours(page: str) -> str:
    """The page without what other libraries call things: the middle cells of the last section's tables."""
    before, heading, tables = page.partition("## What the Rust and Unreal libraries have")
    here = [line.split(" | ")[-1] if line.startswith("| ") else line for line in tables.splitlines()]
    return before + heading + "\n".join(here)


EXAMPLES = [example for page in PAGES for example in examples(page)]
RUNNABLE = [example for example in EXAMPLES if "fragment" not in example.marks]


def names_in(value: Any) -> Iterator[str]:
    """Every text of an event, however deep, and the first line of one that has more."""
    if isinstance(value, str):
        yield value
        yield value.partition("\n")[0]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def test_marks_are_known_and_no_block_escapes() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {mark for example in EXAMPLES for mark in example.marks} <= MARKS
    # A fence with attributes, indentation or another name of the language would not be run.
    assert len(re.findall(r"(?i)^\s*(?:```|~~~)\s*py", text, flags=re.MULTILINE)) == len(EXAMPLES)
    assert len(RUNNABLE) >= 6


@pytest.mark.parametrize("example", RUNNABLE, ids=lambda example: f"{example.page} line {example.line}")
def test_example(example: Example, tmp_path: Path) -> None:
    for name in example.needs:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}, which is not installed")
    script = tmp_path / "example.py"
    script.write_text(example.text, encoding="utf-8")
    server = CaptureServer()
    try:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        done = subprocess.run(
            [sys.executable, str(script)],
            env=inherited | {"MICROMEGAS_TELEMETRY_URL": server.url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        captured = server.captured
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    events = [event for block in captured.blocks for event in block.events]
    if example.arrives == ["nothing"]:
        assert not captured.requests
        return
    assert events, "nothing arrived"
    assert set(example.arrives) <= {text for event in events for text in names_in(event)}


def test_what_the_page_names_exists_and_what_exists_is_named() -> None:
    page = names_of_ours(PAGE.read_text(encoding="utf-8"))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (SOURCE / "record").rglob("*.py"))
    variables = set(re.findall(r"\bMICROMEGAS_[A-Z_]*[A-Z]\b", sources))
    variables |= {f"MICROMEGAS_OIDC_{name}" for name in re.findall(r"\bvariable\(\"([A-Z_]+)\"\)", sources)}
    settings = set(inspect.signature(micromegas.init).parameters)

    calls = re.findall(r"\binit\(([^()]*)\)", page)
    assert {name for call in calls for name in re.findall(r"(?:^|, )(\w+)=", call)} <= settings
    assert {name for name in re.findall(r"\bmm\.(\w+)", page) if not hasattr(micromegas, name)} == set()
    assert set(re.findall(r"\bMICROMEGAS_[A-Z_]*[A-Z]\b", page)) <= variables

    assert {name for name in micromegas.__all__ if not re.search(rf"\b{name}\b", page)} == set()
    assert {name for name in settings if not re.search(rf"\b{name}\b", page)} == set()
    assert {name for name in variables if name not in page} == set()
