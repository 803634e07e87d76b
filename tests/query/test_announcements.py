"""Views `processes` and `streams`: the rows are the same whatever columns a statement looks at."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa
from query.asking import ask, column
from query.traffic import MadeTraffic

from micromegas.lake import Lake, LakeError
from micromegas.lake.metadata.database import driver_rows
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


def test_what_the_driver_says_while_rows_are_read_is_an_error_of_the_lake(lake: Lake) -> None:
    missing = sa.select(sa.table("nowhere", sa.column("x")).c.x)
    with pytest.raises(LakeError, match="nowhere"), lake.metadata._database.read() as connection:
        list(driver_rows(connection, missing, 10))
    # The connection is of use to the next reader.
    assert lake.metadata.count_streams() == 0


def test_counting_lists_no_rows(lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(1, 4):
        MadeTraffic(lake, seed).logs("a")
    monkeypatch.setattr("micromegas.query.metadata_views._EMPTY_ROWS_PER_PART", 4)

    def listed(*_: object, **__: object) -> None:
        raise AssertionError("rows were listed")

    monkeypatch.setattr(lake.metadata, "stream_values", listed)
    monkeypatch.setattr(lake.metadata, "process_values", listed)
    assert column(ask(engine, "SELECT count(*) FROM streams")) == [9]
    assert column(ask(engine, "SELECT count(*) FROM processes CROSS JOIN streams")) == [27]
    assert ask(engine, "SELECT 1 FROM processes").num_rows == 3
    assert ask(engine, "SELECT 1 FROM processes LIMIT 2").num_rows == 2
