"""`process_spans`: the rows of every thread's own view, and the async spans, whole."""

from __future__ import annotations

import pyarrow as pa
import pytest
from query.asking import ask, column, one, refusal
from query.committed import commit_recording, process_of
from query.traffic import MadeTraffic

from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.thread_spans import thread_name

ALL_TIME = {"begin": 0, "end": 2**62}
SPAN_COLUMNS = "id, parent, depth, hash, begin, end, duration, name, target, filename, line"


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return sorted(zip(*(column(table, name) for name in table.column_names), strict=True))


@pytest.mark.parametrize("scenario", ["spans", "unreal_synth"])
def test_threads_are_the_rows_of_their_views(lake: Lake, engine: QueryEngine, scenario: str) -> None:
    recorded = commit_recording(lake, scenario)
    process_id = process_of(recorded)
    expected = []
    for stream in lake.metadata.stream_rows(process_id=process_id, tag="cpu"):
        name = thread_name(stream.stream_id, stream.properties)
        view = ask(engine, f"SELECT * FROM view_instance('thread_spans', '{stream.stream_id}')", **ALL_TIME)
        expected += [(stream.stream_id, name, *row) for row in rows(view)]
    given = ask(engine, f"SELECT * FROM process_spans('{process_id}', 'thread')", **ALL_TIME)
    assert given.schema.names == ["stream_id", "thread_name", *SPAN_COLUMNS.split(", ")]
    assert given.schema.field("thread_name").type == pa.dictionary(pa.int32(), pa.utf8())
    assert rows(given) == sorted(expected)
    assert len({row[0] for row in expected}) > 1


def test_async_spans_are_begins_with_their_ends(lake: Lake, engine: QueryEngine) -> None:
    recorded = commit_recording(lake, "async")
    process_id = process_of(recorded)
    events = [event for block in recorded.blocks for event in block.events]
    opened = [each for each in events if each["$type"].startswith("BeginAsync")]
    closed = {each["span_id"]: each for each in events if each["$type"].startswith("EndAsync")}
    given = ask(engine, f"SELECT * FROM process_spans('{process_id}', 'async')", **ALL_TIME)
    assert set(column(given, "stream_id")) == {""}
    assert set(column(given, "thread_name")) == {"async"}
    told = {(row[0], row[1]) for row in zip(column(given, "id"), column(given, "parent"), strict=True)}
    assert told == {(each["span_id"], each["parent_span_id"]) for each in opened if each["span_id"] in closed}
    assert len(told) == given.num_rows > 0
    for begin, end, duration in zip(*(column(given, name) for name in ("begin", "end", "duration")), strict=True):
        assert end - begin == duration > 0
    both = ask(engine, f"SELECT thread_name FROM process_spans('{process_id}', 'both')", **ALL_TIME)
    threads = ask(engine, f"SELECT thread_name FROM process_spans('{process_id}', 'thread')", **ALL_TIME)
    assert sorted(column(both)) == sorted(column(threads) + column(given, "thread_name"))


def test_the_range_cuts_as_it_cuts_the_views(local_lake: Lake, local_engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(local_lake, "async"))
    sql = f"SELECT begin, end FROM process_spans('{process_id}', 'both') ORDER BY begin"
    every = rows(ask(local_engine, sql, **ALL_TIME))
    begin, end = every[len(every) // 3][0], every[len(every) // 2][0]
    expected = [row for row in every if row[0] <= end and row[1] >= begin]  # type: ignore[operator]
    assert 0 < len(expected) < len(every)
    assert rows(ask(local_engine, sql, begin=begin, end=end)) == expected
    where = f"begin <= arrow_cast({end}, 'Timestamp(ns)') AND end >= arrow_cast({begin}, 'Timestamp(ns)')"
    assert rows(ask(local_engine, sql.replace("ORDER", f"WHERE {where} ORDER"))) == expected
    assert rows(ask(local_engine, sql, begin=end, end=begin)) == []


def test_only_the_threads_asked_for_are_built(local_lake: Lake, local_engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(local_lake, "unreal_synth"))
    streams = local_lake.metadata.stream_rows(process_id=process_id, tag="cpu")
    for chosen, condition in (
        (streams[0], f"stream_id = '{streams[0].stream_id}'"),
        (streams[1], f"thread_name = '{thread_name(streams[1].stream_id, streams[1].properties)}'"),
    ):
        sql = f"SELECT count(*) FROM process_spans('{process_id}', 'both') WHERE {condition}"
        ask(local_engine, f"EXPLAIN {sql}", **ALL_TIME)
        before = len(local_lake.metadata.all_partitions())
        assert one(ask(local_engine, sql, **ALL_TIME)) > 0
        built = [each.instance_id for each in local_lake.metadata.all_partitions()]
        assert len(built) == before + 1
        assert chosen.stream_id in built


def test_what_arrives_later_is_in_the_next_answer(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    sql = f"SELECT count(*) FROM process_spans('{traffic.process_id}', 'both') WHERE name = 'work'"
    assert one(ask(engine, sql, **ALL_TIME)) == 0
    traffic.commit(traffic.thread.spans("()(())"))
    assert one(ask(engine, sql, **ALL_TIME)) == 3
    traffic.commit(traffic.thread.spans("()"))
    assert one(ask(engine, sql, **ALL_TIME)) == 4


def test_threads_whose_rows_outlive_their_blocks_stay(lake: Lake, engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(lake, "spans"))
    sql = f"SELECT * FROM process_spans('{process_id}', 'thread')"
    before = rows(ask(engine, sql, **ALL_TIME))
    lake.delete_blocks_before(lake.metadata.watermark() + 1)
    assert lake.metadata.blocks(process_id=process_id) == []
    assert rows(ask(engine, sql, **ALL_TIME)) == before != []
    assert rows(ask(engine, sql, begin=0, end=1)) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("'{}', 'threads'", "types 'threads' is none of thread, async, both"),
        ("'{}', ''", "types '' is none of thread, async, both"),
        ("'{}', NULL", "types must be a text"),
        ("'{}'", "1 arguments given, 2 expected"),
        ("'nonsense', 'both'", "'nonsense' is not the id of a process"),
        ("'00000000-0000-0000-0000-000000000001', 'both'", "unknown process 00000000-0000-0000-0000-000000000001"),
        ("concat('a', $1), 'both'", "process_id must be a constant"),
    ],
)
def test_arguments_that_name_no_table_are_refused(
    local_lake: Lake, local_engine: QueryEngine, given: str, message: str
) -> None:
    traffic = MadeTraffic(local_lake)
    error = refusal(local_engine, f"SELECT * FROM process_spans({given.format(traffic.process_id)})", **ALL_TIME)
    assert error.kind == "invalid"
    assert message in error.message


def test_a_range_is_needed(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    error = refusal(local_engine, f"SELECT * FROM process_spans('{traffic.process_id}', 'async')")
    assert (error.kind, "needs a time range" in error.message) == ("invalid", True)
    error = refusal(local_engine, "SELECT s.name FROM processes p, LATERAL process_spans(p.process_id, 'both') s")
    assert "process_id must be a constant" in error.message
