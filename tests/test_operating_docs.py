"""docs/operating.md shows policies that a server accepts."""

from __future__ import annotations

import re
from pathlib import Path

from micromegas.config import LakeSettings, QuerySettings, parse_retention_policies
from micromegas.daemon.selection import Selection
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.catalogue import VIEW_SETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operating.md"


def test_the_policies_of_the_page_can_be_used(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    policies = parse_retention_policies(text)
    assert len(policies.raw) == 3
    assert policies.derived is not None
    assert policies.derived.keys() | {each.view_set for each in policies.instances} <= VIEW_SETS.keys()
    assert len(policies.instances) == 1
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake")) as lake:
        engine = QueryEngine(lake, QuerySettings(spill_dir=tmp_path / "spill"))
        try:
            select = Selection(engine, policies)
            for policy in policies.of_streams:
                for table, predicate in (("processes", policy.processes), ("streams", policy.streams)):
                    if predicate is not None:
                        assert select(table, predicate) == frozenset()
        finally:
            engine.close()
