"""Time ranges: exact for the request's range, wide enough when they are read off the statement."""

from __future__ import annotations

import pytest
from e2e.made_traffic import START_TIME
from query.asking import ask, column, one
from query.traffic import MadeTraffic, materialize

from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError
from micromegas.views.log_entries import LOG_ENTRIES


def text(ns: int) -> str:
    """A timestamp literal."""
    return f"arrow_cast({ns}, 'Timestamp(ns, \"+00:00\")')"


@pytest.mark.parametrize("materialized", [False, True])
@pytest.mark.parametrize("source", ["log_entries", "view_instance('log_entries', '{process}')"])
def test_both_ends_of_the_request_range_belong_to_it(
    lake: Lake, engine: QueryEngine, source: str, materialized: bool
) -> None:
    traffic = MadeTraffic(lake)
    first = traffic.next_log_time()
    traffic.logs("a", "b", "c", "d")
    if materialized:
        materialize(lake, LOG_ENTRIES)
    sql = f"SELECT msg FROM {source.format(process=traffic.process_id)} ORDER BY time"
    assert column(ask(engine, sql, begin=first + 1, end=first + 2)) == ["b", "c"]
    assert column(ask(engine, sql, begin=first + 3)) == ["d"]
    assert column(ask(engine, sql, end=first)) == ["a"]
    assert column(ask(engine, sql, begin=first + 4)) == []
    assert column(ask(engine, sql, begin=first + 3, end=first)) == []


def test_bounds_are_read_off_the_statement(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    first = traffic.next_log_time()
    for number in range(10):
        traffic.logs(f"{number}a", f"{number}b")
    materialize(local_lake, LOG_ENTRIES, pieces=5)
    at = [text(first + offset) for offset in range(20)]
    expected = {
        f"SELECT msg FROM log_entries WHERE time = {at[3]}": ["1b"],
        f"SELECT msg FROM log_entries WHERE {at[17]} < time": ["9a", "9b"],
        f"SELECT msg FROM log_entries WHERE NOT (time >= {at[2]})": ["0a", "0b"],
        f"SELECT msg FROM log_entries WHERE time BETWEEN {at[4]} AND {at[5]}": ["2a", "2b"],
        f"SELECT msg FROM log_entries WHERE time < {at[1]} OR time > {at[18]}": ["0a", "9b"],
        f"SELECT msg FROM log_entries WHERE (time < {at[1]} AND msg LIKE '%a') OR msg = '5b'": ["0a", "5b"],
        f"WITH l AS (SELECT * FROM log_entries WHERE time >= {at[18]}) SELECT msg FROM l": ["9a", "9b"],
        f"SELECT msg FROM log_entries WHERE time < {at[1]} UNION ALL "
        f"SELECT msg FROM log_entries WHERE time > {at[18]}": ["0a", "9b"],
        f"SELECT a.msg FROM log_entries a JOIN log_entries b ON a.time = b.time WHERE b.time = {at[7]}": ["3b"],
        f"SELECT msg FROM log_entries WHERE time = (SELECT max(time) FROM log_entries WHERE time < {at[3]})": ["1a"],
        f"SELECT msg FROM log_entries WHERE time IN (SELECT time FROM log_entries WHERE time >= {at[19]})": ["9b"],
        "SELECT msg FROM log_entries WHERE time > NOW()": [f"{number}{kind}" for number in range(10) for kind in "ab"],
        "SELECT msg FROM log_entries WHERE time < '2020-01-01'": [],
        "SELECT msg FROM log_entries WHERE FALSE": [],
    }
    for sql, messages in expected.items():
        assert sorted(column(ask(local_engine, sql))) == messages, sql


@pytest.mark.parametrize("steps", [["(()())"], ["(", "(", ")", "(", ")", ")"]], ids=["one block", "a block per event"])
@pytest.mark.parametrize(
    "source",
    [
        "view_instance('thread_spans', '{thread}')",
        "process_spans('{process}', 'thread')",
    ],
)
def test_spans_that_reach_over_a_time_are_found(lake: Lake, engine: QueryEngine, source: str, steps: list[str]) -> None:
    traffic = MadeTraffic(lake)
    first = START_TIME + traffic.thread.now
    for part in steps:
        traffic.commit(traffic.thread.spans(part))
    table = source.format(thread=traffic.thread.stream_id, process=traffic.process_id)
    over = f'SELECT id FROM {table} WHERE begin <= {text(first + 1)} AND "end" >= {text(first + 4)} ORDER BY id'
    assert column(ask(engine, over)) == [-1, 0]
    # A range in which only the begin lies, and a condition on the end: one bounds the spans from above, one from below.
    ends = f'SELECT id FROM {table} WHERE "end" >= {text(first + 4)} ORDER BY id'
    assert column(ask(engine, ends, begin=first, end=first + 1)) == [-1, 0]
    begins = f"SELECT id FROM {table} WHERE begin < {text(first + 1)} ORDER BY id"
    assert column(ask(engine, begins, begin=first + 3, end=first + 4)) == [-1, 0]
    either = f'{begins.removesuffix("ORDER BY id")} AND "end" > {text(first + 4)} OR begin > {text(first + 90)}'
    assert sorted(column(ask(engine, either))) == [-1, 0]


def test_processes_and_streams_of_before_that_went_on_after(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    announced = lake.metadata.watermark()
    traffic.logs("later")
    updated = lake.metadata.watermark()
    assert announced < updated
    for view in ("processes", "streams"):
        found = f"SELECT process_id FROM {view} WHERE last_update_time > {text(announced)}"
        assert column(ask(engine, found, end=announced)) == [traffic.process_id]
        found = f"{found} AND insert_time <= {text(announced)}"
        assert column(ask(engine, found)) == [traffic.process_id]


def test_a_hidden_scan_gets_the_range_of_the_request(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    first = traffic.next_log_time()
    traffic.logs("a", "b", "c")
    sql = "SELECT (SELECT count(*) FROM log_entries), (SELECT max(msg) FROM log_entries)"
    assert [column(ask(local_engine, sql, begin=first + 1, end=first + 1), place) for place in (0, 1)] == [[1], ["b"]]


def test_process_ids_narrow_the_tail_but_not_with_not_in(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffics = [MadeTraffic(local_lake, seed) for seed in range(5)]
    for number, traffic in enumerate(traffics):
        traffic.logs(f"of {number}")
    ids = [f"'{traffic.process_id}'" for traffic in traffics]
    expected = {
        f"process_id = {ids[0]}": ["of 0"],
        f"process_id <> {ids[0]}": ["of 1", "of 2", "of 3", "of 4"],
        f"process_id IN ({', '.join(ids[:4])})": ["of 0", "of 1", "of 2", "of 3"],
        f"process_id NOT IN ({', '.join(ids[:4])})": ["of 4"],
        f"process_id = {ids[1]} OR process_id = {ids[2]}": ["of 1", "of 2"],
        f"process_id = {ids[1]} AND process_id = {ids[2]}": [],
        f"process_id = {ids[1]} OR msg = 'of 3'": ["of 1", "of 3"],
        f"lower(process_id) = {ids[4]}": ["of 4"],
    }
    for condition, messages in expected.items():
        assert column(ask(local_engine, f"SELECT msg FROM log_entries WHERE {condition} ORDER BY msg")) == messages


def test_a_block_that_ends_before_it_begins_is_found(local_lake: Lake, local_engine: QueryEngine) -> None:
    made = MadeTraffic(local_lake)
    block = made.log.logs(["the clock was set back"])
    made.commit(block | {"begin_time": "2026-01-02T00:00:10Z", "end_time": "2026-01-02T00:00:05Z"})
    for condition in (
        "begin_time >= '2026-01-02T00:00:08Z'",
        "end_time <= '2026-01-02T00:00:06Z'",
        "begin_time >= '2026-01-02T00:00:08Z' AND end_time <= '2026-01-02T00:00:06Z'",
    ):
        assert one(ask(local_engine, f"SELECT count(*) FROM blocks WHERE {condition}")) == 1


@pytest.mark.parametrize("view", ["log_entries", "processes", "streams", "blocks"])
def test_a_text_that_is_no_id_matches_nothing(lake: Lake, engine: QueryEngine, view: str) -> None:
    made = MadeTraffic(lake)
    made.logs("a")
    sql = f"SELECT process_id FROM {view} WHERE process_id = "
    for text_of_id in ("nobody", "", made.process_id.upper(), f"{{{made.process_id}}}", f"{made.process_id}0"):
        assert column(ask(engine, f"{sql}'{text_of_id}'")) == []
    assert set(column(ask(engine, f"{sql}'{made.process_id}'"))) == {made.process_id}


def test_thread_spans_say_that_they_need_a_range(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    spans = f"view_instance('thread_spans', '{traffic.thread.stream_id}')"
    with pytest.raises(QueryError, match="needs a time range") as refused:
        ask(local_engine, f"SELECT * FROM {spans}")
    assert refused.value.kind == "invalid"
    assert ask(local_engine, f"SELECT * FROM {spans} WHERE begin > '2020-01-01' AND end < NOW()").num_rows == 0
    assert ask(local_engine, f"SELECT * FROM {spans}", begin=0, end=2**62).num_rows == 0


def test_global_and_process_instance_agree(lake: Lake, engine: QueryEngine) -> None:
    traffics = [MadeTraffic(lake, seed) for seed in (1, 2)]
    for number in range(3):
        for traffic in traffics:
            traffic.logs(*(f"{number}-{place}" for place in range(5)))
            traffic.values(1.5, number)
    for traffic in traffics:
        for view, key in (("log_entries", "msg"), ("measures", "value")):
            columns = f"time, {key}, process_id, block_id, exe"
            of_all = ask(
                engine, f"SELECT {columns} FROM {view} WHERE process_id = '{traffic.process_id}' ORDER BY time, {key}"
            )
            of_one = ask(
                engine, f"SELECT {columns} FROM view_instance('{view}', '{traffic.process_id}') ORDER BY time, {key}"
            )
            assert of_all.num_rows in (15, 6)
            assert of_all.equals(of_one)


def test_a_range_beyond_all_times_is_fine(local_lake: Lake, local_engine: QueryEngine) -> None:
    MadeTraffic(local_lake).logs("a")
    assert one(ask(local_engine, "SELECT count(*) FROM log_entries", begin=-(2**63), end=2**63 - 1)) == 1
    assert one(ask(local_engine, "SELECT count(*) FROM blocks", begin=-(2**63), end=2**63 - 1)) == 1
    assert one(ask(local_engine, "SELECT count(*) FROM processes", begin=0, end=1)) == 0
