"""Views `processes` and `streams`: the rows are the same whatever columns a statement looks at."""

from __future__ import annotations

import itertools

import pytest
from query.asking import ask, column
from query.traffic import MadeTraffic

from micromegas.lake import Lake
from micromegas.query import QueryEngine


@pytest.mark.parametrize("view", ["processes", "streams"])
def test_each_column_alone_is_that_of_all(lake: Lake, engine: QueryEngine, view: str) -> None:
    for seed in range(1, 4):
        MadeTraffic(lake, seed).logs("a")
    key = "process_id" if view == "processes" else "stream_id"
    whole = ask(engine, f"SELECT * FROM {view} ORDER BY {key}")
    assert whole.num_rows == (3 if view == "processes" else 9)
    for name, other in itertools.pairwise([*whole.column_names, whole.column_names[0]]):
        asked = ask(engine, f"SELECT {name} FROM {view} WHERE {other} IS NOT NULL OR {other} IS NULL ORDER BY {key}")
        assert column(asked) == column(whole, name)
    assert column(ask(engine, f"SELECT count(*) FROM {view}")) == [whole.num_rows]


@pytest.mark.parametrize("view", ["processes", "streams"])
def test_a_range_needs_no_column_of_the_statement(lake: Lake, engine: QueryEngine, view: str) -> None:
    MadeTraffic(lake, 1).logs("a")
    middle = lake.metadata.watermark()
    MadeTraffic(lake, 2)
    plain, per_process = ("username", 1) if view == "processes" else ("format", 3)
    for begin, end, count in ((None, middle, 1), (middle + 1, None, 1), (None, 0, 0), (1, None, 2), (5, 4, 0)):
        found = ask(engine, f"SELECT {plain} FROM {view}", begin=begin, end=end)
        assert found.num_rows == count * per_process


def test_rows_are_listed_in_parts(local_lake: Lake, local_engine: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micromegas.lake.metadata.announcements._ROWS_PER_PART", 2)
    for seed in range(1, 4):
        MadeTraffic(local_lake, seed)
    assert len(set(column(ask(local_engine, "SELECT stream_id FROM streams")))) == 9
