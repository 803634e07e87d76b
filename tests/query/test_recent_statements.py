"""A statement that is asked again is planned by what is known of it, and answered by what is there now."""

from __future__ import annotations

import time
from dataclasses import replace

import pyarrow as pa
import pytest
from query.asking import ask, column, one, refusal
from query.conftest import SETTINGS
from query.traffic import MadeTraffic, materialize

from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError, functions
from micromegas.views.log_entries import LOG_ENTRIES

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    "now", ["now()", "NOW( )", "current_timestamp", "CURRENT_TIMESTAMP()", "(SELECT now())", '"now"()']
)
def test_the_time_goes_on(local_lake: Lake, local_engine: QueryEngine, now: str) -> None:
    """What is not over yet when it is asked first is found when it is."""
    traffic = MadeTraffic(local_lake)
    event = traffic.next_log_time()
    traffic.logs("soon")
    materialize(local_lake, LOG_ENTRIES)
    ago = time.time_ns() - event + SECOND // 2
    sql = f"SELECT count(*) FROM log_entries WHERE time <= {now} - INTERVAL '{ago} nanoseconds'"
    assert one(ask(local_engine, sql)) == 0
    deadline = time.monotonic() + 20
    while one(ask(local_engine, sql)) == 0:
        assert time.monotonic() < deadline, "the range stands still"
        time.sleep(0.05)


def test_each_request_has_its_own_range(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    times = []
    for message in "abc":
        times.append(traffic.next_log_time())
        traffic.logs(message)
        materialize(local_lake, LOG_ENTRIES)
    sql = "SELECT msg FROM log_entries ORDER BY time"
    for _ in range(2):
        assert column(ask(local_engine, sql)) == ["a", "b", "c"]
        assert column(ask(local_engine, sql, begin=times[1])) == ["b", "c"]
        assert column(ask(local_engine, sql, end=times[1])) == ["a", "b"]
        assert column(ask(local_engine, sql, begin=times[1], end=times[1])) == ["b"]
        assert column(ask(local_engine, sql, assumed_begin=times[2])) == ["c"]


def test_each_request_has_its_own_parameters(local_lake: Lake, local_engine: QueryEngine) -> None:
    MadeTraffic(local_lake).logs("a", "b")
    sql = "SELECT msg FROM log_entries WHERE msg = $1"
    for wanted in ("a", "b", "c"):
        found = ask(local_engine, sql, parameters={"1": pa.scalar(wanted)})
        assert column(found) == [wanted] * (wanted != "c")
        assert local_engine.describe(sql).parameter_schema.names == ["1"]


def test_what_is_for_administrators_stays_theirs(local_lake: Lake) -> None:
    MadeTraffic(local_lake).logs("1")
    theirs = replace(next(each for each in functions.SCALARS if each.name == "jsonb_parse"), name="secret")
    engine = QueryEngine(local_lake, SETTINGS, administrators_scalars=[theirs])
    sql = "SELECT count(*) FROM log_entries WHERE secret(msg) IS NOT NULL"
    try:
        for _ in range(2):
            assert engine.describe(sql, administers=True).schema.names == ["count(*)"]
            assert one(ask(engine, sql, administers=True)) == 1
            assert "secret" in refusal(engine, sql).message
            with pytest.raises(QueryError, match="secret"):
                engine.describe(sql)
    finally:
        engine.close()


def test_views_of_a_process_are_looked_up_each_time(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    sql = f"SELECT count(*) FROM view_instance('log_entries', '{traffic.process_id}')"
    for count in range(3):
        assert one(ask(local_engine, sql)) == count
        traffic.logs(f"{count}")
    unknown = "SELECT count(*) FROM view_instance('log_entries', '00000000-0000-0000-0000-000000000001')"
    for _ in range(2):
        assert "unknown process" in refusal(local_engine, unknown).message
