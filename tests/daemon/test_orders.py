"""Orders of administrators, given in SQL: what they change, what they leave alone, and who may give them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from daemon.log_minutes import ALL_STATS, LogMinutes, counted, counts
from daemon.telemetry import (
    MIDNIGHT,
    HandClock,
    Telemetry,
    check_lake,
    cover,
    global_partitions,
    merge,
    needed_objects,
    objects_of,
)
from query.asking import answer
from query.conftest import SETTINGS

from micromegas.daemon import administration
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND
from micromegas.lake import Lake, Partition, new_partition_id
from micromegas.query import QueryEngine, QueryError
from micromegas.serve.query_engine import query_engine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.views.measures import MEASURES
from micromegas.wire import rfc3339_text


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = query_engine(lake, SETTINGS)
    yield opened
    opened.close()


def order(engine: QueryEngine, sql: str, *, administers: bool = True, **request: Any) -> pa.Table:
    return asyncio.run(answer(engine, sql, administers=administers, **request))


def log(engine: QueryEngine, call: str) -> list[str]:
    """The messages of an order in FROM."""
    table = order(engine, f"SELECT * FROM {call}")
    assert table.schema.names == ["time", "msg"]
    assert not any(field.nullable for field in table.schema)
    return list(table["msg"].to_pylist())


def span(begin: int, end: int) -> str:
    return f"'{rfc3339_text(begin)}', '{rfc3339_text(end)}'"


def made(name: str, begin: int, end: int, step_s: int) -> str:
    return f"{name}('log_entries', {span(begin, end)}, {step_s})"


def partitions(lake: Lake) -> set[tuple[int, int, str | None]]:
    return {
        (each.begin_insert_time, each.end_insert_time, each.file_path) for each in global_partitions(lake, LOG_ENTRIES)
    }


def some_hours(lake: Lake, clock: HandClock, hours: int = 3) -> Telemetry:
    """Messages and values in each of some hours from midnight on."""
    telemetry = Telemetry(lake, 1)
    for hour in range(hours):
        for minute in (1, 2, 40):
            clock.now = MIDNIGHT + hour * HOUR + minute * MINUTE
            telemetry.send_logs()
            telemetry.send_values()
    clock.now = MIDNIGHT + hours * HOUR + MINUTE
    return telemetry


def test_materialized_hours_are_one_partition_each_and_stay_as_they_are(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    telemetry = some_hours(lake, clock)
    call = made("materialize_partitions", MIDNIGHT, MIDNIGHT + 4 * HOUR, 3600)
    messages = log(engine, call)
    assert len(messages) == 4
    assert all(message.endswith(": 1 partitions made") for message in messages[:3])
    assert messages[3].endswith("not over yet")
    first = partitions(lake)
    assert [((begin - MIDNIGHT) // HOUR, (end - MIDNIGHT) / HOUR) for begin, end, _ in sorted(first)] == [
        (hour, hour + 1) for hour in range(3)
    ]
    assert check_lake(lake, [telemetry]) == len(telemetry.values)
    objects = objects_of(lake)
    assert [message.rpartition(": ")[2] for message in log(engine, call)] == ["up to date"] * 3 + ["not over yet"]
    assert partitions(lake) == first
    assert objects_of(lake) == objects, "the second time changes no file"
    # What the daemon finds afterwards is done for it.
    cover(lake, LOG_ENTRIES, clock)
    assert partitions(lake) == first


def test_materializing_merges_what_the_daemon_left_in_pieces(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(5):
        telemetry.send_logs()
        clock.now += MINUTE
        cover(lake, LOG_ENTRIES, clock)
    clock.now = MIDNIGHT + HOUR
    assert len(partitions(lake)) > 3
    (message,) = log(engine, made("materialize_partitions", MIDNIGHT, MIDNIGHT + HOUR, 3600))
    assert "partitions merged" in message
    assert [(begin, end) for begin, end, _ in partitions(lake)] == [(MIDNIGHT, MIDNIGHT + HOUR)]
    assert check_lake(lake, [telemetry]) == 0


def test_what_sticks_out_of_a_bucket_is_left_alone(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = some_hours(lake, clock)
    log(engine, made("materialize_partitions", MIDNIGHT, MIDNIGHT + 2 * HOUR, 7200))
    (whole,) = before = partitions(lake)
    messages = log(engine, made("materialize_partitions", MIDNIGHT, MIDNIGHT + 3 * HOUR, 3600))
    assert ["reaches beyond it" in message for message in messages] == [True, True, False]
    assert whole in partitions(lake)
    assert len(partitions(lake)) == len(before) + 1
    with pytest.raises(QueryError, match="choose longer buckets"):
        log(engine, made("regenerate_partitions", MIDNIGHT, MIDNIGHT + 3 * HOUR, 3600))
    assert check_lake(lake, [telemetry]) == len(telemetry.values)


def test_regenerated_buckets_are_made_again_whatever_is_there(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    telemetry = some_hours(lake, clock)
    for view_set in (LOG_ENTRIES, MEASURES):
        cover(lake, view_set, clock)
        merge(lake, view_set, clock)
    before = partitions(lake)
    messages = log(engine, made("regenerate_partitions", MIDNIGHT, MIDNIGHT + 3 * HOUR, 3600))
    assert len(messages) == 3
    after = partitions(lake)
    assert not after & before
    assert {end - begin for begin, end, _ in after} == {HOUR}
    assert check_lake(lake, [telemetry]) == 0
    with pytest.raises(QueryError, match="no multiple of 3600 s"):
        log(engine, made("regenerate_partitions", MIDNIGHT, MIDNIGHT + HOUR + SECOND, 3600))
    with pytest.raises(QueryError, match="is not over yet"):
        log(engine, made("regenerate_partitions", MIDNIGHT, MIDNIGHT + 4 * HOUR, 3600))
    assert partitions(lake) == after, "refused orders change nothing"


def test_partitions_of_an_older_schema_are_replaced(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = some_hours(lake, clock, 1)
    assert LOG_ENTRIES.decoded is not None
    older = dataclasses.replace(LOG_ENTRIES, decoded=dataclasses.replace(LOG_ENTRIES.decoded, decoder_version=0))
    cover(lake, older, clock)
    assert {each.schema_hash for each in global_partitions(lake, LOG_ENTRIES)} == {older.schema_hash}
    (message,) = log(engine, made("materialize_partitions", MIDNIGHT, MIDNIGHT + HOUR, 3600))
    assert "partitions of an older schema made again" in message
    assert {each.schema_hash for each in global_partitions(lake, LOG_ENTRIES)} == {LOG_ENTRIES.schema_hash}
    assert check_lake(lake, [telemetry]) == len(telemetry.values)


def test_rows_whose_blocks_are_gone_are_never_made_from_fewer(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    some_hours(lake, clock, 2)
    cover(lake, LOG_ENTRIES, clock)
    rows = order(engine, "SELECT count(*) FROM log_entries").column(0)[0].as_py()
    while lake.delete_blocks_before(MIDNIGHT + 30 * MINUTE):
        pass
    messages = log(engine, made("materialize_partitions", MIDNIGHT, MIDNIGHT + 2 * HOUR, 3600))
    assert "2 blocks that its rows were made of are gone" in messages[0]
    before = partitions(lake)
    with pytest.raises(QueryError, match=r"2 blocks .* are gone"):
        log(engine, made("regenerate_partitions", MIDNIGHT, MIDNIGHT + 2 * HOUR, 3600))
    assert partitions(lake) == before
    assert order(engine, "SELECT count(*) FROM log_entries").column(0)[0].as_py() == rows
    # Nor does a daemon of the next release, with another schema.
    assert LOG_ENTRIES.decoded is not None
    newer = dataclasses.replace(LOG_ENTRIES, decoded=dataclasses.replace(LOG_ENTRIES.decoded, decoder_version=99))
    cover(lake, newer, clock)
    kept = [each for each in global_partitions(lake, LOG_ENTRIES) if each.schema_hash == LOG_ENTRIES.schema_hash]
    assert sum(each.num_rows for each in kept) >= 9, "the rows of the first hour, two thirds of which have no blocks"


def test_views_defined_by_sql_are_made_by_order_too(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    processes = [LogMinutes(lake, 1)]

    def check() -> None:
        assert counts(order(engine, ALL_STATS)) == counted(processes)

    for hour in (0, 0, 1):
        processes[0].send([(hour, 4, "shop::orders"), (hour + 1, 2, "shop::cache")])
        clock.now = MIDNIGHT + hour * HOUR + 3 * MINUTE
    clock.now = MIDNIGHT + 2 * HOUR
    whole = span(MIDNIGHT, MIDNIGHT + 2 * HOUR)
    call = f"materialize_partitions('log_stats', {whole}, {{}})"
    # Nothing is kept of log_entries: what the order needs it decodes.
    first, second = log(engine, call.format(3600))
    assert first.startswith("log_stats [2027-01-15T00:00:00Z, 2027-01-15T01:00:00Z): 4 rows, views/log_stats/global/")
    assert second.endswith(": up to date"), "without blocks there is nothing to keep"
    clock.now += MINUTE
    processes.append(LogMinutes(lake, 2))
    processes[1].send([(3, 4, "shop::orders")])
    clock.now += HOUR
    check()
    (made,) = global_partitions(lake, LOG_STATS)
    assert log(engine, call.format(3600)) == [
        message.rpartition(": ")[0] + ": up to date" for message in (first, second)
    ]
    assert global_partitions(lake, LOG_STATS) == [made]
    longer = f"materialize_partitions('log_stats', {span(MIDNIGHT, MIDNIGHT + 4 * HOUR)}, 14400)"
    assert log(engine, longer)[0].endswith("not over yet")
    clock.now += 2 * HOUR
    (message,) = log(engine, longer)
    assert message.endswith("instead of 1 partitions")
    (joined,) = global_partitions(lake, LOG_STATS)
    assert (joined.begin_insert_time, joined.end_insert_time) == (MIDNIGHT, MIDNIGHT + 4 * HOUR)
    check()
    assert ["reaches beyond it" in message for message in log(engine, call.format(3600))] == [True, True]
    again = longer.replace("materialize", "regenerate")
    log(engine, again)
    (anew,) = global_partitions(lake, LOG_STATS)
    assert anew.partition_id != joined.partition_id
    assert (anew.source_hash, anew.num_rows) == (joined.source_hash, joined.num_rows)
    check()
    # Counts of blocks that are gone are never made again.
    while lake.delete_blocks_before(MIDNIGHT + MINUTE):
        pass
    with pytest.raises(QueryError, match=r"\d blocks that rows in .* were made of are gone"):
        log(engine, again)
    assert log(engine, longer)[0].endswith(": up to date")
    check()


def test_an_order_does_not_touch_counts_of_another_definition_whose_blocks_are_gone(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    LogMinutes(lake, 1).send([(0, 4, "shop::orders")])
    clock.now = MIDNIGHT + HOUR
    call = f"materialize_partitions('log_stats', {span(MIDNIGHT, MIDNIGHT + HOUR)}, 3600)"
    log(engine, call)
    (made,) = global_partitions(lake, LOG_STATS)
    assert made.file_path is not None
    older = dataclasses.replace(
        made, schema_hash=b"another", partition_id=new_partition_id(), file_path=None, num_rows=0
    )
    lake.metadata.replace_partitions("log_stats", "global", frozenset({made.partition_id}), older)
    (message,) = log(engine, call)
    assert "instead of 1 partitions" in message
    (made,) = global_partitions(lake, LOG_STATS)
    older = dataclasses.replace(older, partition_id=new_partition_id())
    lake.metadata.replace_partitions("log_stats", "global", frozenset({made.partition_id}), older)
    while lake.delete_blocks_before(clock.now):
        pass
    (message,) = log(engine, call)
    assert "left as it is: 1 blocks that rows of an earlier definition were made of are gone" in message
    assert global_partitions(lake, LOG_STATS) == [older]


def test_retired_partitions_are_made_again_by_the_next_query(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = some_hours(lake, clock)
    count = f"SELECT count(*) FROM view_instance('log_entries', '{telemetry.process_id}')"
    expected = order(engine, count).column(0)[0].as_py()
    (first,) = lake.metadata.partitions("log_entries", telemetry.process_id)
    assert first.file_path is not None
    retire = f"retire_partitions('log_entries', '{telemetry.process_id}', {{}})"
    messages = log(engine, retire.format(span(MIDNIGHT, first.end_insert_time - 1)))
    assert messages[-1].endswith(": 0 partitions retired"), "only what lies wholly inside"
    messages = log(engine, retire.format(span(MIDNIGHT, MIDNIGHT + DAY)))
    assert len(messages) == 2
    assert first.file_path in messages[0]
    assert lake.metadata.partitions("log_entries", telemetry.process_id) == []
    assert first.file_path in objects_of(lake), "queries may still read it"
    assert order(engine, count).column(0)[0].as_py() == expected
    (again,) = lake.metadata.partitions("log_entries", telemetry.process_id)
    assert again.file_path != first.file_path
    clock.now += 2 * HOUR
    lake.sweep_expired()
    assert objects_of(lake) == needed_objects(lake)


def as_named(partition: Partition) -> str:
    begin, end = partition.begin_insert_time, partition.end_insert_time
    return f"retire_partition_by_metadata('{partition.view_set}', '{partition.instance_id}', {span(begin, end)})"


def test_partitions_are_retired_by_file_all_or_none(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    some_hours(lake, clock)
    cover(lake, LOG_ENTRIES, clock)
    before = partitions(lake)
    assert len(before) > 2
    # Rows of the branches of a union would be several batches, and so several transactions.
    one_batch = "(SELECT unnest(array_agg(file_path)) AS path FROM ({}))"
    listed = "SELECT file_path FROM list_partitions()"
    both = one_batch.format(f"{listed} UNION ALL SELECT 'no/such'")
    outcomes = order(engine, f"SELECT retire_partition_by_file(path) AS r FROM {both}")["r"].to_pylist()
    assert "ERROR: no partition no/such" in outcomes
    assert all(outcome.startswith("ERROR: ") for outcome in outcomes)
    assert partitions(lake) == before
    known = one_batch.format(listed)
    outcomes = order(engine, f"SELECT retire_partition_by_file(path) AS r FROM {known}")["r"].to_pylist()
    assert set(outcomes) == {f"SUCCESS: retired {path}" for _, _, path in before}
    assert partitions(lake) == set()
    assert order(engine, "SELECT retire_partition_by_file(NULL) AS r")["r"].to_pylist() == [None]


def test_partitions_without_rows_are_retired_by_range(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_values()
    clock.now += MINUTE
    telemetry.send_values()
    cover(lake, LOG_ENTRIES, clock)
    (empty,) = global_partitions(lake, LOG_ENTRIES)
    assert empty.file_path is None
    other = dataclasses.replace(empty, end_insert_time=empty.end_insert_time + 1)
    (outcome,) = order(engine, f"SELECT {as_named(other)} AS r")["r"].to_pylist()
    assert outcome.startswith("ERROR: no partition log_entries/global [")
    assert global_partitions(lake, LOG_ENTRIES) == [empty]
    (outcome,) = order(engine, f"SELECT {as_named(empty)} AS r")["r"].to_pylist()
    assert outcome.startswith("SUCCESS: retired log_entries/global [")
    assert global_partitions(lake, LOG_ENTRIES) == []
    listed = "SELECT retire_partition_by_metadata(view_set_name, view_instance_id, begin_insert_time, end_insert_time)"
    cover(lake, LOG_ENTRIES, clock)
    assert order(engine, f"{listed} AS r FROM list_partitions()").num_rows == 1
    assert global_partitions(lake, LOG_ENTRIES) == []


def test_a_schema_hash_guards_the_partition_that_is_meant(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    some_hours(lake, clock, 1)
    cover(lake, LOG_ENTRIES, clock)
    (partition,) = global_partitions(lake, LOG_ENTRIES)[:1]
    call = as_named(partition)[:-1] + ", decode('{}', 'hex')) AS r"
    (outcome,) = order(engine, f"SELECT {call.format('04')}")["r"].to_pylist()
    assert outcome.startswith("ERROR: no partition log_entries/global [")
    assert partition in global_partitions(lake, LOG_ENTRIES)
    (outcome,) = order(engine, f"SELECT {call.format(partition.schema_hash.hex())}")["r"].to_pylist()
    assert outcome.startswith("SUCCESS: retired log_entries/global [")
    assert partition not in global_partitions(lake, LOG_ENTRIES)
    # Left out it is NULL, and the column keeps the name that the call gives it.
    table = order(engine, f"SELECT {as_named(partition)}")
    assert table.schema.names == [as_named(partition)]
    with pytest.raises(QueryError, match="retire_partition_by_metadata"):
        order(engine, f"SELECT {as_named(partition)}", administers=False)


ORDERS = (
    "SELECT * FROM materialize_partitions('log_entries', '2027-01-15T00:00:00Z', '2027-01-15T01:00:00Z', 60)",
    "SELECT * FROM regenerate_partitions('log_entries', '2027-01-15T00:00:00Z', '2027-01-15T01:00:00Z', 60)",
    "SELECT * FROM retire_partitions('log_entries', 'global', '2027-01-15T00:00:00Z', '2028-01-15T01:00:00Z')",
    "SELECT retire_partition_by_file(file_path) FROM list_partitions()",
    "SELECT retire_partition_by_metadata('log_entries', 'global', now(), now())",
)


def test_orders_exist_for_administrators_only_and_explain_carries_none_out(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    some_hours(lake, clock, 1)
    cover(lake, LOG_ENTRIES, clock)
    before = partitions(lake)
    unknown = "not found|Invalid function"
    for sql in ORDERS:
        name = next(word for word in sql.replace("(", " ").split() if word.startswith(("mat", "reg", "retire")))
        with pytest.raises(QueryError, match=unknown) as refused:
            order(engine, sql, administers=False)
        assert name in refused.value.message
        engine.describe(sql, administers=True)
        order(engine, f"EXPLAIN {sql}")
        order(engine, f"EXPLAIN VERBOSE {sql}")
        # What an administrator was offered is not left to those who come after.
        with pytest.raises(QueryError, match=unknown):
            engine.describe(sql)
    assert partitions(lake) == before


def test_an_order_is_carried_out_once_per_statement(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    some_hours(lake, clock, 1)
    call = "regenerate_partitions('log_entries', TIMESTAMP '2027-01-15T08:00:00', '2027-01-15T09:00:00Z', 3600)"
    begin = MIDNIGHT + 8 * HOUR
    assert rfc3339_text(begin) == "2027-01-15T08:00:00Z"
    Telemetry(lake, 3)
    clock.now = begin + MINUTE
    telemetry = Telemetry(lake, 4)
    telemetry.send_logs()
    clock.now = begin + HOUR
    joined = f"SELECT a.msg AS one, b.msg AS other FROM {call} a JOIN {call} b ON a.msg = b.msg"
    rows = order(engine, f"{joined} UNION ALL SELECT msg AS one, trim(msg) AS other FROM {call}")
    assert rows.num_rows == 2
    assert len({path for row in rows.to_pylist() for path in row.values()}) == 1
    # Times that don't stand still between the two plans of a statement.
    clock.now += DAY
    moving = "retire_partitions('log_entries', 'global', now() - INTERVAL '900 days', now() + INTERVAL '900 days')"
    assert len(log(engine, moving)) == 2


BAD_ARGUMENTS = (
    ("'nothing', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 60", "unknown view set 'nothing'"),
    (
        "'thread_spans', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 60",
        "there are some in log_entries, .*log_stats",
    ),
    ("'log_stats', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 90", "kept in whole minutes"),
    ("'log_stats', '2027-01-15T00:00:30Z', '2027-01-16T00:00:00Z', 60", "kept in whole minutes"),
    ("'log_stats', '2027-01-15T00:00:00Z', '2027-01-18T00:00:00Z', 172800", "lasts at most 86400 s"),
    ("'log_entries', '2027-01-16T00:00:00Z', '2027-01-15T00:00:00Z', 60", "is empty"),
    ("'log_entries', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 0", "at least a second"),
    ("'log_entries', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', -5", "at least a second"),
    ("'log_entries', '1700-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 1", "at most 100000 at once"),
    ("'log_entries', '2027-01-15T00:00:00Z', '2027-01-15T00:00:01Z', 9223372036854775807", "shorter than a bucket"),
    ("'log_entries', 'yesterday', '2027-01-16T00:00:00Z', 60", "begin must be a time"),
    ("'log_entries', '2027-01-15', '2027-01-16T00:00:00Z', 60", "begin must be a time"),
    ("'log_entries', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z', 'x'", "delta_seconds must be an integer"),
    ("'log_entries', '2027-01-15T00:00:00Z', '2027-01-16T00:00:00Z'", "3 arguments given, 4 expected"),
    ("'log_entries', NULL, '2027-01-16T00:00:00Z', 60", "begin must be a time"),
)


@pytest.mark.parametrize("view", ["blocks", "processes", "streams"])
def test_views_of_the_metadata_database_have_nothing_to_be_made(
    lake: Lake, clock: HandClock, engine: QueryEngine, view: str
) -> None:
    some_hours(lake, clock, 1)
    for name in ("materialize_partitions", "regenerate_partitions"):
        messages = log(engine, f"{name}('{view}', {span(MIDNIGHT, MIDNIGHT + HOUR)}, 1800)")
        assert ["always up to date" in message for message in messages] == [True, True]
    assert lake.metadata.all_partitions() == []


def test_bad_arguments_are_told(lake: Lake, engine: QueryEngine) -> None:
    for name in ("materialize_partitions", "regenerate_partitions"):
        for arguments, complaint in BAD_ARGUMENTS:
            with pytest.raises(QueryError, match=complaint) as refused:
                log(engine, f"{name}({arguments})")
            assert refused.value.kind == "invalid"
    assert lake.metadata.all_partitions() == []


def test_an_order_that_nobody_waits_for_ends(lake: Lake, clock: HandClock) -> None:
    some_hours(lake, clock, 2)
    orders = administration.Administration(lake)
    steps = orders.materialize(
        "log_entries", administration.InsertRange(MIDNIGHT, MIDNIGHT + 2 * HOUR), HOUR, iter([True] * 9).__next__
    )
    next(steps)
    begun = partitions(lake)
    stopped = orders.materialize(
        "log_entries", administration.InsertRange(MIDNIGHT, MIDNIGHT + 2 * HOUR), HOUR, lambda: False
    )
    assert list(stopped) == []
    assert partitions(lake) == begun
