"""What EXPLAIN shows of files."""

from __future__ import annotations

import re

import pytest
from query.asking import ask, column
from query.traffic import MadeTraffic

from micromegas.lake import Lake
from micromegas.query import QueryEngine


@pytest.mark.parametrize("explain", ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE", "EXPLAIN ANALYZE VERBOSE"])
def test_explain_names_files_within_the_lake(lake: Lake, engine: QueryEngine, explain: str) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a")
    sql = f"SELECT msg FROM view_instance('log_entries', '{traffic.process_id}') UNION ALL SELECT msg FROM log_entries"
    ask(engine, sql)
    (partition,) = lake.metadata.partitions("log_entries", traffic.process_id)
    plans = "".join(column(ask(engine, f"{explain} {sql}"), "plan"))
    assert f"[[{partition.file_path}]]" in plans
    assert re.search(r"\[\[unstored/\d+\.arrow\]\]", plans)
    assert "/views/" not in plans
    assert "tmp/" not in plans
    assert "scratch" not in plans


def test_other_statements_are_left_alone(lake: Lake, engine: QueryEngine) -> None:
    path = lake.objects.url_of("x").partition("//")[2]
    assert column(ask(engine, f"SELECT ' {path[1:]}' AS plan"), "plan") == [f" {path[1:]}"]
