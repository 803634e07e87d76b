"""Shapes 23 to 33 of lakehouse §9: spans of threads."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from conformance.conftest import Asked
from conformance.world import HOUR, MINUTE, START, Span, Stream
from traces.processor import loaded

WITHIN = (START, START + 4 * HOUR)
FIRST_CHAIN = (START + MINUTE, START + HOUR)


def threads(asked: Asked) -> list[Stream]:
    return [stream for stream in asked.world.streams if stream.tag == "cpu" and stream.process.exe != "matchmaker"]


def spans(asked: Asked, thread: Stream) -> list[Span]:
    """In pre-order."""
    return sorted((each for each in asked.world.spans if each.stream is thread), key=lambda each: each.begin)


def thread_name(thread: Stream) -> str:
    return "{thread-name}-{thread-id}".format_map(thread.properties)


def view(thread: Stream) -> str:
    return f"view_instance('thread_spans', '{thread.stream_id}')"


def test_23_slowest(asked: Asked) -> None:
    for thread in threads(asked):
        sql = f"SELECT name, duration / 1000000.0 ms FROM {view(thread)} ORDER BY duration DESC LIMIT 10"
        slowest = sorted(spans(asked, thread), key=lambda each: -each.duration)[:10]
        found = asked.rows(sql, WITHIN)
        assert [(name, pytest.approx(ms)) for name, ms in found] == [
            (each.name, each.duration / 1e6) for each in slowest
        ]


def test_24_inclusive_totals(asked: Asked) -> None:
    for thread in threads(asked):
        sql = f"SELECT name, COUNT(*), SUM(duration) FROM {view(thread)} GROUP BY name ORDER BY 3 DESC"
        found = asked.rows(sql, WITHIN)
        counts, totals = Counter[str](), Counter[str]()
        for each in spans(asked, thread):
            counts[each.name] += 1
            totals[each.name] += each.duration
        assert found == [(name, counts[name], total) for name, total in totals.most_common()]


def test_25_children_of_a_span(asked: Asked) -> None:
    for thread in threads(asked):
        sql = (
            f"SELECT c.name, c.duration FROM {view(thread)} c JOIN {view(thread)} p ON c.parent = p.id "
            "WHERE p.name = 'tick'"
        )
        ticks = {each.id for each in spans(asked, thread) if each.name == "tick"}
        expected = Counter((each.name, each.duration) for each in spans(asked, thread) if each.parent in ticks)
        assert expected.total() == 120
        assert Counter(asked.rows(sql, WITHIN)) == expected


def test_26_exclusive_time(asked: Asked) -> None:
    for thread in threads(asked):
        sql = (
            f"SELECT p.id, p.duration - SUM(c.duration) FROM {view(thread)} c JOIN {view(thread)} p "
            "ON c.parent = p.id WHERE p.name = 'frame' GROUP BY p.id, p.duration"
        )
        frames = {each.id: each.duration for each in spans(asked, thread) if each.name == "frame"}
        for each in spans(asked, thread):
            if each.parent in frames:
                frames[each.parent] -= each.duration
        assert dict(asked.rows(sql, WITHIN)) == frames


def test_27_in_order(asked: Asked) -> None:
    for thread in threads(asked):
        sql = f"SELECT id, depth, name, begin FROM {view(thread)} ORDER BY begin"
        expected = [(each.id, each.depth, each.name, each.begin) for each in spans(asked, thread)]
        assert asked.rows(sql, WITHIN) == expected


def test_28_indented_tree(asked: Asked) -> None:
    for thread in threads(asked):
        sql = f"SELECT REPEAT('  ', CAST(depth AS BIGINT)) || name FROM {view(thread)} ORDER BY begin, depth"
        expected = [("  " * each.depth + each.name,) for each in spans(asked, thread)]
        assert asked.rows(sql, WITHIN) == expected


def test_29_frame_budget(asked: Asked) -> None:
    """The content of frames that took too long, by a join of ranges."""
    for thread in threads(asked):
        lengths = sorted(each.duration for each in spans(asked, thread) if each.name == "frame")
        budget = lengths[len(lengths) * 3 // 4]
        sql = (
            f"SELECT f.id, s.name, s.duration FROM {view(thread)} f JOIN {view(thread)} s "
            'ON s.begin >= f.begin AND s."end" <= f."end" AND s.depth > f.depth '
            f"WHERE f.name = 'frame' AND f.duration > {budget}"
        )
        slow = [each for each in spans(asked, thread) if each.name == "frame" and each.duration > budget]
        expected = Counter(
            (frame.id, each.name, each.duration)
            for frame in slow
            for each in spans(asked, thread)
            if frame.begin <= each.begin and each.end <= frame.end and each.depth > frame.depth
        )
        assert expected.total() == 3 * len(slow) > 0
        assert Counter(asked.rows(sql, WITHIN)) == expected


def test_30_all_threads_of_a_process(asked: Asked) -> None:
    process = threads(asked)[0].process
    sql = f"SELECT thread_name, name, SUM(duration) FROM process_spans('{process.process_id}', 'thread') GROUP BY 1, 2"
    totals = Counter[tuple[str, str]]()
    for thread in threads(asked):
        for each in spans(asked, thread):
            totals[thread_name(thread), each.name] += each.duration
    assert {(thread, name): total for thread, name, total in asked.rows(sql, WITHIN)} == totals


@pytest.mark.parametrize("end", ["end", '"end"'])
def test_31_swim_lanes(asked: Asked, end: str) -> None:
    """Also with `end` unquoted, as people write it."""
    process = threads(asked)[0].process
    sql = (
        f"SELECT stream_id, thread_name, name, begin, {end}, depth "
        f"FROM process_spans('{process.process_id}', 'both') ORDER BY begin"
    )
    expected = Counter(
        (thread.stream_id, thread_name(thread), each.name, each.begin, each.end, each.depth)
        for thread in threads(asked)
        for each in spans(asked, thread)
    )
    found = asked.rows(sql, WITHIN)
    assert Counter(found) == expected
    begins = [row[3] for row in found]
    assert begins == sorted(begins)


def test_31_swim_lanes_of_async_spans(asked: Asked) -> None:
    (process,) = {each.process.process_id: each.process for each in asked.world.async_spans}.values()
    sql = (
        "SELECT stream_id, thread_name, name, begin, end, depth "
        f"FROM process_spans('{process.process_id}', 'async') ORDER BY begin"
    )
    expected = Counter(
        ("", "async", each.name, each.begin, each.end, each.depth)
        for each in asked.world.async_spans
        if each.end is not None
    )
    assert Counter(asked.rows(sql, WITHIN)) == expected


def test_32_a_trace_file(asked: Asked) -> None:
    process = threads(asked)[0].process
    sql = (
        f"SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('{process.process_id}', 'both', "
        "TIMESTAMP '2026-05-28T20:00:00+00:00', TIMESTAMP '2026-05-29T00:00:00+00:00') ORDER BY chunk_id"
    )
    chunks = asked.rows(sql, WITHIN)
    assert [number for number, _ in chunks] == list(range(len(chunks)))
    with loaded(b"".join(data for _, data in chunks)) as trace:
        found = Counter(trace.rows("SELECT ts, dur, name FROM slice"))
    expected = Counter(
        (each.begin, each.duration, each.name) for thread in threads(asked) for each in spans(asked, thread)
    )
    assert found == expected


def test_33_thread_coverage(asked: Asked) -> None:
    process = threads(asked)[0].process
    sql = (
        f"SELECT stream_id, begin_time, end_time FROM blocks WHERE process_id='{process.process_id}' "
        "AND array_has(\"streams.tags\",'cpu') ORDER BY stream_id, begin_time"
    )
    expected = sorted(
        (block.stream.stream_id, block.begin, block.end) for thread in threads(asked) for block in thread.blocks
    )
    assert asked.rows(sql, WITHIN) == expected


def test_a_range_cuts_at_whole_spans(asked: Asked) -> None:
    """Every span that touches the range, with its own begin and end; the roots are those of the chains in range."""
    for thread in threads(asked):
        middle = [each for each in spans(asked, thread) if each.name == "frame" and each.begin < FIRST_CHAIN[1]][30]
        within = (middle.begin, middle.end)
        sql = f'SELECT id, parent, depth, name, begin, "end", duration FROM {view(thread)} WHERE depth > 0'
        expected = Counter(
            (each.id, each.parent, each.depth, each.name, each.begin, each.end, each.duration)
            for each in spans(asked, thread)
            if each.depth > 0 and each.begin <= within[1] and each.end >= within[0]
        )
        assert Counter(asked.rows(sql, within)) == expected


def test_parents_hold_their_children(asked: Asked) -> None:
    for thread in threads(asked):
        found: dict[int, list[int]] = defaultdict(list)
        for each in asked.rows(f"SELECT parent, id FROM {view(thread)} WHERE depth > 1", WITHIN):
            found[each[0]].append(each[1])
        expected: dict[int, list[int]] = defaultdict(list)
        for span in spans(asked, thread):
            if span.depth > 1:
                expected[span.parent].append(span.id)
        assert found == expected
