"""What we rely on in DataFusion beyond its documentation. A new release has to pass here first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext, udf

from micromegas.config import QuerySettings
from micromegas.lake import DataFusionStore
from micromegas.query.bounds import MAX_TIME, MIN_TIME, Bounds, TimeRange
from micromegas.query.listing_plan import ListingPlan
from micromegas.query.scans import FilterColumns, scan_needs
from micromegas.query.session import READ_ONLY, Sessions

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False),
        pa.field("name", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("end", pa.int64()),
    ]
)


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    opened = Sessions(QuerySettings(spill_dir=tmp_path / "spill"), DataFusionStore("file", None, {}))
    yield opened
    opened.close()


def files(folder: Path, count: int) -> list[str]:
    urls = []
    for number in range(count):
        rows = pa.table(
            {"time": [number * 10, number * 10 + 1], "name": ["a", "b"], "end": [number, None]},
            schema=pa.schema([("time", pa.int64()), ("name", pa.utf8()), ("end", pa.int64())]),
        ).cast(SCHEMA)
        pq.write_table(rows, folder / f"{number}.parquet")
        urls.append((folder / f"{number}.parquet").as_uri())
    return urls


def test_a_table_reads_exactly_the_files_given(sessions: Sessions, tmp_path: Path) -> None:
    urls = files(tmp_path, 5)
    plan = ListingPlan(sessions.derive(), SCHEMA)
    context = sessions.derive()
    for chosen in (urls, urls[1:3], urls[:1]):
        frame = plan.table(context, "some|name", chosen)
        assert frame.count() == 2 * len(chosen)
        assert frame.schema().equals(SCHEMA)
    table = plan.table(context, "t", urls)
    context.register_table("t", table.into_view())
    explained = str(context.sql("EXPLAIN SELECT * FROM t WHERE time > '1970-01-01T00:00:00.000000040Z'").to_pydict())
    assert "pruning_predicate" in explained, "row groups are not pruned any more"


def test_arrow_files_are_read_likewise(sessions: Sessions, tmp_path: Path) -> None:
    rows = pq.read_table(files(tmp_path, 1)[0].removeprefix("file://")).cast(SCHEMA)
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(rows)
    plan = ListingPlan(sessions.derive(), SCHEMA, arrow=True)
    frame = plan.table(sessions.derive(), "t", [(tmp_path / "rows.arrow").as_uri()])
    assert frame.schema().equals(SCHEMA)
    assert frame.to_arrow_table().column("name").to_pylist() == ["a", "b"]


def test_derived_contexts_share_functions_but_no_tables_and_see_no_files(sessions: Sessions, tmp_path: Path) -> None:
    twice = udf(lambda x: pa.compute.multiply(x, 2), [pa.int64()], pa.int64(), "immutable", "twice")
    sessions.base.register_udf(twice)
    first, second = sessions.derive(), sessions.derive()
    first.from_pydict({"a": [1]}, "private")
    assert first.sql("SELECT twice(a) FROM private").to_pydict() == {"twice(private.a)": [2]}
    assert not second.table_exist("private")
    assert not sessions.base.table_exist("private")
    files(tmp_path, 1)
    for context in (first, second):
        with pytest.raises(ValueError, match="not found"):
            context.sql(f"SELECT * FROM '{tmp_path / '0.parquet'}'")


def needs_of(context: SessionContext, sql: str) -> tuple[Bounds, frozenset[str] | None] | None:
    plan = context.sql_with_options(sql, READ_ONLY).optimized_logical_plan()
    columns = FilterColumns(("time",), None, ("name",))
    need = scan_needs(plan, {"t|files": columns}).get("t|files")
    return None if need is None else (need.bounds, need.columns)


def test_needs_are_read_off_the_plan(sessions: Sessions) -> None:
    context = sessions.derive()
    table = ListingPlan(sessions.derive(), SCHEMA).table(context, "t|files", ["file:///nothing.parquet"])
    context.register_table("t", table.into_view())
    second = 1_000_000_000
    names = {
        "name = 'a'": ("a",),
        "'a' = name": ("a",),
        "name IN ('a', 'b', 'c', 'd', 'e')": tuple("abcde"),
        "name NOT IN ('a', 'b', 'c', 'd', 'e')": None,
        "name = 'a' OR name = 'b'": ("a", "b"),
        "name = 'a' OR time > '2020-01-01'": None,
        "name LIKE 'a%'": None,
        "name <> 'a'": None,
        "name IS NOT NULL": None,
    }
    for condition, allowed in names.items():
        found = needs_of(context, f"SELECT time FROM t WHERE {condition}")
        assert found is not None
        assert found[0].allowed("name") == (None if allowed is None else frozenset(allowed)), condition
    times = {
        "time = '1970-01-01T00:00:07Z'": TimeRange(7 * second, 7 * second),
        "time > '1970-01-01T00:00:07Z'": TimeRange(7 * second + 1, None),
        "time < TIMESTAMP '1970-01-01T00:00:07'": TimeRange(None, 7 * second - 1),
        "time BETWEEN '1970-01-01T00:00:01Z' AND '1970-01-01T00:00:02Z'": TimeRange(second, 2 * second),
        "time NOT BETWEEN '1970-01-01T00:00:01Z' AND '1970-01-01T00:00:02Z'": TimeRange(),
        "time >= '1970-01-01T00:00:01Z' OR time <= '1970-01-01'": TimeRange(),
        "date_trunc('day', time) = '1970-01-01'": TimeRange(),
        "time + INTERVAL '1 second' > '1970-01-01T00:00:07Z' AND time < '1970-01-01T00:00:09Z'": TimeRange(
            None, 9 * second - 1
        ),
    }
    for condition, expected in times.items():
        found = needs_of(context, f"SELECT name FROM t WHERE {condition}")
        assert found is not None
        wide, exact = found[0].time, expected
        # A newer engine may understand more, but the range must never leave out what the condition admits.
        assert wide == exact or condition.startswith("date_trunc"), condition
    assert needs_of(context, "SELECT name FROM t") == (Bounds(), frozenset({"name"}))
    assert needs_of(context, "SELECT 1") is None
    hidden = needs_of(context, "SELECT (SELECT max(name) FROM t WHERE time > '2020-01-01')")
    assert hidden == (Bounds(), None)


def test_ranges() -> None:
    assert TimeRange(1, 5).intersect(TimeRange(3, None)) == TimeRange(3, 5)
    assert TimeRange(1, 2).hull(TimeRange(7, 9)) == TimeRange(1, 9)
    assert TimeRange(5, 1).hull(TimeRange(7, 9)) == TimeRange(7, 9)
    assert not TimeRange(5, 1).overlaps(MIN_TIME, MAX_TIME)
    assert TimeRange(5, 6).overlaps(6, 9)
    assert not TimeRange(5, 6).overlaps(7, 9)
