"""`perfetto_trace_chunks`, read back by Perfetto's own trace processor: it shows what SQL says, span for span."""

from __future__ import annotations

from collections import defaultdict
from math import isnan
from typing import Any

import pyarrow as pa
import pytest
from query.asking import ask, column, refusal
from query.committed import commit_recording, process_of
from query.traffic import MadeTraffic
from traces.processor import LoadedTrace, loaded

from micromegas.lake import Lake
from micromegas.query import QueryEngine

ALL_TIME = {"begin": 0, "end": 2**62}
BEGIN, END = "'1980-01-01T00:00:00Z'", "TIMESTAMP '2100-01-01T00:00:00+01:00'"
LEVELS = ("fatal", "error", "warn", "info", "debug", "trace")

ONE_LANE_AT_A_TIME = """
    SELECT a.id, b.id FROM slice a JOIN slice b USING (track_id)
    WHERE a.id < b.id AND b.ts > a.ts AND b.ts < a.ts + a.dur AND b.ts + b.dur > a.ts + a.dur
"""


def trace_of(engine: QueryEngine, process_id: str, types: str, begin: str = BEGIN, end: str = END) -> bytes:
    table = ask(
        engine, f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('{process_id}', '{types}', {begin}, {end})"
    )
    assert column(table, "chunk_id") == list(range(table.num_rows))
    assert table.num_rows > 0
    return b"".join(column(table, "chunk_data"))


def records(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column(table, name) for name in table.column_names), strict=True))


def slices_of_threads(trace: LoadedTrace) -> list[tuple[Any, ...]]:
    return sorted(
        trace.rows("""
            SELECT thread.name AS thread, slice.ts, slice.dur, slice.name AS name, coalesce(slice.category, ''),
                slice.depth, coalesce(parent.name, '') AS parent
            FROM slice JOIN thread_track ON slice.track_id = thread_track.id
            JOIN thread USING (utid) LEFT JOIN slice parent ON slice.parent_id = parent.id
        """)
    )


@pytest.mark.parametrize("scenario", ["spans", "unreal_synth"])
def test_threads_show_their_spans_as_sql_does(lake: Lake, engine: QueryEngine, scenario: str) -> None:
    process_id = process_of(commit_recording(lake, scenario))
    sql = f"SELECT * FROM process_spans('{process_id}', 'thread')"
    table = ask(engine, sql, **ALL_TIME)
    spans = table.drop_columns(["begin", "end"]).to_pylist()
    named = {(span["stream_id"], span["id"]): span["name"] for span in spans}
    lowest = {stream: min(span["depth"] for span in spans if span["stream_id"] == stream) for stream, _ in named}
    expected = sorted(
        (
            span["thread_name"],
            begin,
            span["duration"],
            span["name"],
            span["target"],
            span["depth"] - lowest[span["stream_id"]],
            named.get((span["stream_id"], span["parent"]), "") if span["depth"] > lowest[span["stream_id"]] else "",
        )
        for span, begin in zip(spans, column(table, "begin"), strict=True)
    )
    with loaded(trace_of(engine, process_id, "thread")) as trace:
        assert slices_of_threads(trace) == expected
        assert trace.rows(ONE_LANE_AT_A_TIME) == []
        assert trace.rows("SELECT name FROM process WHERE upid > 0") == [
            (ask(engine, f"SELECT exe FROM processes WHERE process_id = '{process_id}'")[0][0].as_py(),)
        ]
    assert len(expected) > 1000


def test_async_spans_overlap_on_tracks_of_their_own(lake: Lake, engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(lake, "async"))
    spans = {
        row[0]: row
        for row in records(
            ask(
                engine,
                f"SELECT id, parent, begin, duration, name, target FROM process_spans('{process_id}', 'async')",
                **ALL_TIME,
            )
        )
    }
    with loaded(trace_of(engine, process_id, "async")) as trace:
        shown = {
            row[0]: row
            for row in trace.rows(
                "SELECT extract_arg(arg_set_id, 'debug.span_id'), extract_arg(arg_set_id, 'debug.parent_span_id'), ts,"
                " dur, name, category FROM slice"
            )
        }
        assert shown == spans
        assert trace.rows(ONE_LANE_AT_A_TIME) == []
        inside_of = trace.rows(
            "SELECT extract_arg(s.arg_set_id, 'debug.parent_span_id'), extract_arg(p.arg_set_id, 'debug.span_id')"
            " FROM slice s JOIN slice p ON s.parent_id = p.id"
        )
        assert inside_of
        assert all(told == found for told, found in inside_of)
        flows = trace.rows(
            "SELECT extract_arg(o.arg_set_id, 'debug.span_id'), extract_arg(i.arg_set_id, 'debug.span_id')"
            " FROM flow JOIN slice o ON slice_out = o.id JOIN slice i ON slice_in = i.id"
        )
        assert sorted(flows) == sorted((parent, number) for number, parent, *_ in spans.values() if parent in spans)


def test_measures_are_counters(local_lake: Lake, local_engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(local_lake, "metrics"))
    sql = (
        "SELECT name, unit, time, value, jsonb_format_json(properties) AS properties "
        f"FROM view_instance('measures', '{process_id}')"
    )
    expected: dict[tuple[str, str], list[tuple[int, float | None]]] = defaultdict(list)
    for name, unit, time, value, properties in records(ask(local_engine, sql)):
        shown = name if properties == "{}" else f"{name} {properties}"
        expected[shown, unit].append((time, value))
    found: dict[tuple[str, str], list[tuple[int, float | None]]] = defaultdict(list)
    with loaded(trace_of(local_engine, process_id, "measures")) as trace:
        for name, unit, time, value in trace.rows(
            "SELECT t.name, t.unit, ts, value FROM counter JOIN counter_track t ON counter.track_id = t.id"
        ):
            found[name, unit or ""].append((time, value))
        assert trace.rows("SELECT count(*) FROM slice") == [(0,)]

    def comparable(series: dict[tuple[str, str], list[tuple[int, float | None]]]) -> dict[object, object]:
        # Perfetto's tables know no NaN: it reads one as NULL.
        return {
            key: sorted((time, value) for time, value in values if value is not None and not isnan(value))
            for key, values in series.items()
        }

    assert comparable(found) == comparable(expected)
    assert len(expected) > 5


def test_log_lines_are_instants(local_lake: Lake, local_engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(local_lake, "logs"))
    table = ask(
        local_engine,
        "SELECT time, level, target, msg, jsonb_format_json(properties) AS properties "
        f"FROM view_instance('log_entries', '{process_id}')",
    )
    expected = sorted(
        (time, LEVELS[level - 1], target, message, None if properties == "{}" else properties)
        for time, level, target, message, properties in records(table)
    )
    with loaded(trace_of(local_engine, process_id, "logs")) as trace:
        found = trace.rows(
            "SELECT ts, extract_arg(arg_set_id, 'debug.level'), extract_arg(arg_set_id, 'debug.target'),"
            " extract_arg(arg_set_id, 'debug.message'), extract_arg(arg_set_id, 'debug.properties'), dur, category"
            " FROM slice JOIN track ON slice.track_id = track.id WHERE track.name = 'Log'"
        )
    assert {row[5] for row in found} == {0}
    assert all(row[6] == row[2] for row in found)

    def plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        # Texts of Perfetto's tables end at a NUL.
        return sorted((row[0], *(str(each).split("\0")[0] for each in row[1:5])) for row in rows)

    assert plain(found) == plain(expected)


def test_all_is_everything_and_the_range_cuts(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    first = traffic.next_log_time()
    traffic.logs("one", "two", "three")
    traffic.values(1.0, 2.0)
    traffic.commit(traffic.thread.spans("(())()"))

    def counts(types: str, begin: str = BEGIN, end: str = END) -> list[int]:
        with loaded(trace_of(local_engine, traffic.process_id, types, begin, end)) as trace:
            on_log = trace.rows("SELECT count(*) FROM slice JOIN track t ON track_id = t.id WHERE t.name = 'Log'")[0][0]
            slices = trace.rows("SELECT count(*) FROM slice")[0][0]
            return [slices - on_log, trace.rows("SELECT count(*) FROM counter")[0][0], on_log]

    assert counts("all") == [4, 2, 3]
    assert counts("thread, logs") == [4, 0, 3]
    assert counts("both") == [4, 0, 0]
    assert counts("measures,async") == [0, 2, 0]
    exactly = f"arrow_cast({first + 1}, 'Timestamp(ns)')"
    assert counts("logs", exactly, exactly) == [0, 0, 1]
    assert counts("logs", "NOW() - INTERVAL '1 hour'", "NOW()") == [0, 0, 0]


def test_explain_builds_nothing_and_a_filter_is_applied(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("one")
    chunks = f"perfetto_trace_chunks('{traffic.process_id}', 'all', {BEGIN}, {END})"
    assert ask(local_engine, f"EXPLAIN SELECT * FROM {chunks}").num_rows > 0
    assert local_lake.metadata.all_partitions() == []
    whole = records(ask(local_engine, f"SELECT * FROM {chunks} ORDER BY chunk_id"))
    assert [len(row) for row in whole] == [2]
    assert records(ask(local_engine, f"SELECT chunk_data FROM {chunks} WHERE chunk_id = 0")) == [(whole[0][1],)]
    assert records(ask(local_engine, f"SELECT chunk_id FROM {chunks} WHERE chunk_id > 0")) == []
    assert column(ask(local_engine, f"SELECT count(*) FROM {chunks} a JOIN {chunks} b USING (chunk_id)")) == [1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("'{}', 'threads', NOW(), NOW()", "types 'threads' is none of thread, async, both, measures, logs, all"),
        ("'{}', '', NOW(), NOW()", "types '' is none of"),
        ("'{}', 'logs,', NOW(), NOW()", "types '' is none of"),
        ("'{}', 'all', NOW(), NOW() - INTERVAL '1 hour'", "the begin lies after the end"),
        ("'{}', 'all', NULL, NOW()", "begin must be a time"),
        ("'{}', 'all', 'yesterday', NOW()", "begin must be a time"),
        ("'{}', 'all', NOW()", "3 arguments given, 4 expected"),
        ("'x', 'all', NOW(), NOW()", "'x' is not the id of a process"),
        ("'00000000-0000-0000-0000-000000000001', 'all', NOW(), NOW()", "unknown process 00000000"),
    ],
)
def test_arguments_that_name_no_trace_are_refused(
    local_lake: Lake,
    local_engine: QueryEngine,
    given: str,
    message: str,
) -> None:
    traffic = MadeTraffic(local_lake)
    error = refusal(local_engine, f"SELECT * FROM perfetto_trace_chunks({given.format(traffic.process_id)})")
    assert error.kind == "invalid"
    assert message in error.message


def test_columns_are_no_arguments(local_lake: Lake, local_engine: QueryEngine) -> None:
    sql = "SELECT * FROM processes p, LATERAL perfetto_trace_chunks(p.process_id, 'all', p.start_time, NOW())"
    assert "process_id must be a constant" in refusal(local_engine, sql).message
