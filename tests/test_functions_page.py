"""docs/functions.md tells of every function of ours, and what it shows is what the examples answer."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import functions_page

from micromegas.query.functions import AGGREGATES, SCALARS


@pytest.fixture(scope="module")
def written() -> str:
    return functions_page.page()


def test_the_page_is_what_the_code_says(written: str) -> None:
    stored = functions_page.PAGE.read_text(encoding="utf-8")
    assert stored == written, "docs/functions.md is stale: python tools/functions_page.py"


def test_every_function_has_a_heading_and_every_example_an_answer(written: str) -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", written, re.MULTILINE | re.DOTALL))
    named = {each.name for each in AGGREGATES} | {each.name for each in SCALARS if each.example is not None}
    assert named | {"get_payload", "view_instance", "parse_block", "list_partitions"} <= set(sections)
    for name, section in sections.items():
        sql, answer = re.findall(r"```sql\n(.*?)\n```\n\n(.*)", section, re.DOTALL)[0]
        assert name in sql, name
        assert len(answer.strip().splitlines()) > 2, f"the example of {name} has no rows"
