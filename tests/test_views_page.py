"""docs/views.md tells of every view set, what it shows is what the examples answer, and the views that it takes for
examples of a site's own are right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import views_page
from example_lake import example_lake
from shown_answers import answer

from micromegas.config import QuerySettings
from micromegas.query import QueryEngine
from micromegas.views.catalogue import VIEW_SETS


@pytest.fixture(scope="module")
def written() -> str:
    return views_page.page()


def test_the_page_is_what_the_code_says(written: str) -> None:
    stored = views_page.PAGE.read_text(encoding="utf-8")
    assert stored == written, "docs/views.md is stale: python tools/views_page.py"


def test_every_view_set_has_a_section_with_its_columns_and_an_answer(written: str) -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", written, re.MULTILINE | re.DOTALL))
    for name, view_set in VIEW_SETS.items():
        section = sections[name]
        assert all(f"| `{column}` |" in section for column in view_set.schema.names)
        sql, shown = re.findall(r"```sql\n(.*?)\n```\n\n(.*)", section, re.DOTALL)[0]
        assert name in sql
        has_rows = len(shown.strip().splitlines()) > 2
        assert has_rows == (name not in views_page.NO_EXAMPLE_ROWS), f"the example of {name}"


def test_the_example_of_own_views_works(tmp_path: Path) -> None:
    with example_lake(tmp_path / "lake") as lake:
        engine = QueryEngine(lake, QuerySettings(views_file=views_page.OWN_VIEWS))
        try:
            assert engine.view_problems == []
            names = [each.name for each in engine.reductions.view_sets if each.name not in VIEW_SETS]
            assert names
            for name in names:
                assert answer(engine, f"SELECT * FROM {name}").num_rows > 0
        finally:
            engine.close()
