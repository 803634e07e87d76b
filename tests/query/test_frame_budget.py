"""`frame_budget` against a plain walk over the spans of each thread, by their parents."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

import pytest
from query.asking import ask, column, refusal
from query.committed import commit_recording, process_of
from query.traffic import MadeTraffic

from micromegas.lake import Lake
from micromegas.query import QueryEngine

ALL_TIME = {"begin": 0, "end": 2**62}
Span = dict[str, Any]


def spans_of(engine: QueryEngine, process_id: str, **request: Any) -> list[Span]:
    table = ask(engine, f"SELECT * FROM process_spans('{process_id}', 'thread')", **request)
    rows: list[Span] = table.drop_columns(["begin", "end"]).to_pylist()
    for row, begin, end in zip(rows, column(table, "begin"), column(table, "end"), strict=True):
        row |= {"begin": begin, "end": end}
    return rows


def with_ancestors(spans: list[Span]) -> list[tuple[Span, list[Span]]]:
    """Each span with those around it, the innermost first."""
    by_id: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in spans:
        by_id[span["stream_id"], span["id"]].append(span)

    def above(span: Span) -> Span | None:
        # The roots that stand for a thread all have one id.
        for parent in by_id[span["stream_id"], span["parent"]]:
            if parent["depth"] < span["depth"] and parent["begin"] <= span["begin"] and parent["end"] >= span["end"]:
                return parent
        return None

    found = []
    for span in spans:
        around: list[Span] = []
        outer = above(span)
        while outer is not None:
            around.append(outer)
            outer = above(outer)
        found.append((span, around))
    return found


def expected_rows(spans: list[tuple[Span, list[Span]]], name: str, budget_ns: int) -> list[Any]:
    """What slow frames hold, found by following the parents of each span."""
    in_children: dict[int, int] = defaultdict(int)
    for span, around in spans:
        if around:
            in_children[id(around[0])] += span["duration"]
    sums: dict[int, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    frames: dict[int, Span] = {}
    for span, around in spans:
        frame = next((each for each in [*reversed(around), span] if each["name"] == name), None)
        if frame is None or frame["duration"] <= budget_ns:
            continue
        frames[id(frame)] = frame
        scope = (span["name"], span["target"])
        total = sums[id(frame)][scope]
        total[0] += 1
        total[2] += span["duration"] - in_children[id(span)]
        is_within_its_like = False
        for each in around if span is not frame else []:
            is_within_its_like |= (each["name"], each["target"]) == scope
            if each is frame:
                break
        if not is_within_its_like:
            total[1] += span["duration"]
    rows = []
    for key, frame in frames.items():
        for (inside, target), (count, inclusive, exclusive) in sums[key].items():
            place = (frame["stream_id"], frame["thread_name"], frame["id"], frame["begin"], frame["end"])
            times = (frame["duration"] / 1e6, (frame["duration"] - budget_ns) / 1e6)
            share = exclusive / frame["duration"]
            rows.append((*place, *times, inside, target, count, inclusive / 1e6, exclusive / 1e6, share))
    return sorted(rows)


def answered(engine: QueryEngine, process_id: str, name: str, budget_ms: float, **request: Any) -> list[Any]:
    quoted = name.replace("'", "''")
    table = ask(engine, f"SELECT * FROM frame_budget('{process_id}', '{quoted}', {budget_ms!r})", **request)
    return list(zip(*(column(table, each) for each in table.column_names), strict=True))


@pytest.mark.parametrize("scenario", ["spans", "unreal_synth"])
def test_every_name_as_a_frame(local_lake: Lake, local_engine: QueryEngine, scenario: str) -> None:
    process_id = process_of(commit_recording(local_lake, scenario))
    spans = with_ancestors(spans_of(local_engine, process_id, **ALL_TIME))
    nested = 0
    for name in sorted({span["name"] for span, _ in spans})[:6]:
        budget_ns = int(median(span["duration"] for span, _ in spans if span["name"] == name))
        expected = expected_rows(spans, name, budget_ns)
        assert sorted(answered(local_engine, process_id, name, budget_ns / 1e6, **ALL_TIME)) == expected, name
        nested += len(expected)
    assert nested > 20


def test_the_largest_share_comes_first_and_shares_add_up(lake: Lake, engine: QueryEngine) -> None:
    process_id = process_of(commit_recording(lake, "unreal_synth"))
    spans = spans_of(engine, process_id, **ALL_TIME)
    name = max({span["name"] for span in spans if span["depth"] == 1}, key=len)
    frames: dict[Any, list[float]] = defaultdict(list)
    for row in answered(engine, process_id, name, 0.0, **ALL_TIME):
        frames[row[0], row[2]].append(row[-1])
    assert frames
    for shares in frames.values():
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0)


def test_frames_that_the_range_cuts_are_left_out(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    for _ in range(4):
        traffic.commit(traffic.thread.spans("(()())"))
    every = answered(local_engine, traffic.process_id, "work", 0.0, **ALL_TIME)
    # spans of the name within a frame are part of it
    assert [row[9] for row in every] == [3] * 4
    assert {(row[10], row[11]) for row in every} == {(5e-6, 5e-6)}
    begin, end = every[1][3], every[2][4]
    within = answered(local_engine, traffic.process_id, "work", 0.0, begin=begin, end=end)
    assert within == every[1:3]
    assert answered(local_engine, traffic.process_id, "work", 0.0, begin=begin + 1, end=end) == every[2:3]
    assert answered(local_engine, traffic.process_id, "work", 5e-6, **ALL_TIME) == []
    assert answered(local_engine, traffic.process_id, "nothing's called so", 0.0, **ALL_TIME) == []


def test_explain_builds_nothing(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.commit(traffic.thread.spans("()"))
    sql = f"EXPLAIN SELECT * FROM frame_budget('{traffic.process_id}', 'work', 1)"
    assert ask(local_engine, sql, **ALL_TIME).num_rows > 0
    assert local_lake.metadata.all_partitions() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("'{}', 'frame', -1", "budget -1.0 is no number of milliseconds"),
        ("'{}', 'frame', 1e300", "budget 1e+300 is no number of milliseconds"),
        ("'{}', 'frame', 'NaN'", "budget must be a number"),
        ("'{}', 'frame', NULL", "budget must be a number"),
        ("'{}', NULL, 1", "span_name must be a text"),
        ("'x', 'frame', 1", "'x' is not the id of a process"),
        ("'00000000-0000-0000-0000-000000000001', 'frame', 1", "unknown process 00000000"),
    ],
)
def test_arguments_that_can_not_be_are_refused(
    local_lake: Lake, local_engine: QueryEngine, given: str, message: str
) -> None:
    traffic = MadeTraffic(local_lake)
    sql = f"SELECT * FROM frame_budget({given.format(traffic.process_id)})"
    error = refusal(local_engine, sql, **ALL_TIME)
    assert error.kind == "invalid"
    assert message in error.message


def test_a_range_is_needed(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    error = refusal(local_engine, f"SELECT * FROM frame_budget('{traffic.process_id}', 'frame', 1)")
    assert "needs a time range" in error.message
