"""The call tree against a tree of plain objects, over whole, cut and damaged event sequences."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pyarrow as pa
import pytest
from engine.call_tree_reference import THREAD, Block, Event, Scope, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas import _engine

MAX_OPEN = 1 << 20
"""As in `call_tree.rs`."""

SCOPES: list[Scope] = [
    ("main", "app", "main.py", 1),
    ("main", "app", "main.py", 2),
    ("draw", "app", "main.py", 1),
    ("draw", "lib", "draw.py", 1),
    ("", "", "", 0),
]
TIME = pa.timestamp("ns", "+00:00")
DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())
SCHEMA = pa.schema(
    [
        pa.field(name, data_type, nullable=False)
        for name, data_type in [
            ("id", pa.int64()),
            ("parent", pa.int64()),
            ("depth", pa.uint32()),
            ("hash", pa.uint32()),
            ("begin", TIME),
            ("end", TIME),
            ("duration", pa.int64()),
            ("name", DICT_TEXT),
            ("target", DICT_TEXT),
            ("filename", DICT_TEXT),
            ("line", pa.uint32()),
        ]
    ]
)


def build(blocks: list[Block]) -> tuple[pa.RecordBatch, int]:
    """The batch with one tick a nanosecond since the epoch, and the anomalies."""
    tree = _engine.CallTree(THREAD[0], 0, 0, 1_000_000_000)
    feed(tree, blocks)
    anomalies = tree.anomalies
    batch = pa.record_batch(tree.finish())
    batch.validate(full=True)
    return batch, anomalies


def feed(tree: _engine.CallTree, blocks: list[Block]) -> None:
    handles = {}
    for begin, end, events in blocks:
        tree.begin_block(begin, end)
        for kind, ticks, scope, event_id in events:
            if scope not in handles:
                name, target, filename, line = scope
                handles[scope] = tree.scope(name, target, filename, line)
            (tree.on_begin if kind == "begin" else tree.on_end)(ticks, handles[scope], event_id)


def read(batch: pa.RecordBatch) -> list[tuple]:
    columns = {name: batch.column(name) for name in batch.schema.names}
    for name in ("begin", "end"):
        columns[name] = columns[name].cast(pa.int64())
    lists = {name: column.to_pylist() for name, column in columns.items()}
    assert lists["duration"] == [end - begin for begin, end in zip(lists["begin"], lists["end"], strict=True)]
    scopes = zip(lists["name"], lists["target"], lists["filename"], lists["line"], strict=True)
    names = ("id", "parent", "depth", "begin", "end")
    return list(zip(*(lists[name] for name in names), scopes, strict=True))


def check(blocks: list[Block]) -> tuple[list[tuple], int]:
    batch, anomalies = build(blocks)
    assert batch.schema == SCHEMA
    found = read(batch)
    assert (found, anomalies) == rows(blocks)
    begins = [row[3] for row in found]
    assert begins == sorted(begins)
    assert all(row[4] >= row[3] for row in found)
    return found, anomalies


@st.composite
def damaged_blocks(draw: st.DrawFn) -> list[Block]:
    """Blocks in order whose events may lie anywhere, in any order, and need not pair up."""
    event = st.tuples(st.sampled_from(["begin", "end"]), st.integers(-2, 42), st.sampled_from(SCOPES))
    spans = st.tuples(st.integers(0, 40), st.integers(0, 40))
    blocks = draw(st.lists(st.tuples(spans, st.lists(event, max_size=12), st.booleans()), max_size=5))
    blocks.sort(key=lambda block: block[0])
    out: list[Block] = []
    event_id = 0
    for (begin, end), events, in_order in blocks:
        numbered: list[Event] = []
        for kind, ticks, scope in sorted(events, key=lambda each: each[1]) if in_order else events:
            numbered.append((kind, ticks, scope, event_id))
            event_id += 1
        out.append((begin, end, numbered))
    return out


@st.composite
def whole_events(draw: st.DrawFn) -> list[Event]:
    """A balanced sequence at strictly rising ticks from 10 on."""
    events: list[Event] = []
    open_scopes: list[Scope] = []
    for close in [*draw(st.lists(st.booleans(), max_size=40)), *[True] * 40]:
        ticks = 10 + len(events)
        if close and open_scopes:
            events.append(("end", ticks, open_scopes.pop(), len(events)))
        elif not close:
            open_scopes.append(draw(st.sampled_from(SCOPES)))
            events.append(("begin", ticks, open_scopes[-1], len(events)))
    return events


def cut(events: list[Event], at: list[int]) -> list[Block]:
    edges = [0, *sorted({index for index in at if 0 < index < len(events)}), len(events)]
    return [(10 + start, 10 + end, events[start:end]) for start, end in pairwise(edges)]


@given(damaged_blocks())
@settings(deadline=None)
def test_any_events_give_the_mended_tree(blocks: list[Block]):
    check(blocks)


@given(whole_events(), st.lists(st.integers(0, 80), max_size=5))
@settings(deadline=None)
def test_whole_events_give_their_tree_however_they_are_cut_into_blocks(events: list[Event], at: list[int]):
    found, anomalies = check(cut(events, at))
    assert anomalies == 0
    if not events:
        assert found == []
        return
    assert found[0] == (-1, 0, 0, 10, 10 + len(events), THREAD)
    by_id = {row[0]: row for row in found}
    for event_id, parent, depth, begin, end, scope in found[1:]:
        assert events[event_id] == ("begin", begin, scope, event_id)
        assert ("end", end, scope) in [event[:3] for event in events]
        assert depth == by_id[parent][2] + 1
        assert by_id[parent][3] <= begin <= end <= by_id[parent][4]
    assert len(found) == 1 + len(events) // 2


@given(whole_events(), st.integers(0, 80), st.integers(0, 80))
@settings(deadline=None)
def test_a_cut_sequence_has_no_anomaly(events: list[Event], first: int, last: int):
    events = events[first:last]
    if events:
        begin, end = events[0][1], events[-1][1]
        found, anomalies = check([(begin, end, events)])
        assert anomalies == 0
        starts = {event[3] for event in events if event[0] == "begin"}
        # an end whose begin was cut away stands for its span
        assert {row[0] for row in found[1:]} >= starts


A, B, C = SCOPES[0], SCOPES[2], SCOPES[3]


def test_missing_begins_enclose_what_came_before():
    found, anomalies = check(
        [
            (
                0,
                100,
                [
                    ("begin", 10, C, 5),
                    ("end", 20, C, 6),
                    ("end", 30, B, 7),
                    ("begin", 40, C, 8),
                    ("end", 50, C, 9),
                    ("end", 60, A, 10),
                ],
            )
        ]
    )
    assert anomalies == 0
    assert [row[:5] for row in found] == [
        (-1, 0, 0, 0, 100),
        (10, -1, 1, 0, 60),
        (7, 10, 2, 0, 30),
        (5, 7, 3, 10, 20),
        (8, 10, 2, 40, 50),
    ]


def test_missing_ends_are_closed_with_the_span_around_them():
    found, anomalies = check(
        [(0, 100, [("begin", 10, A, 0), ("begin", 20, B, 1), ("begin", 30, C, 2), ("end", 40, A, 3)])]
    )
    assert anomalies == 2
    assert [row[:5] for row in found] == [(-1, 0, 0, 0, 100), (0, -1, 1, 10, 40), (1, 0, 2, 20, 40), (2, 1, 3, 30, 40)]


def test_an_end_that_fits_nothing_is_dropped():
    found, anomalies = check([(0, 100, [("begin", 10, A, 0), ("end", 20, B, 1), ("end", 30, A, 2)])])
    assert anomalies == 1
    assert [row[:5] for row in found] == [(-1, 0, 0, 0, 100), (0, -1, 1, 10, 30)]


def test_open_spans_last_until_the_end_of_the_chain():
    found, anomalies = check([(0, 50, [("begin", 10, A, 0)]), (50, 80, [("begin", 60, B, 1)])])
    assert anomalies == 0
    assert [row[:5] for row in found] == [(-1, 0, 0, 0, 80), (0, -1, 1, 10, 80), (1, 0, 2, 60, 80)]


def test_a_gap_starts_a_new_tree_and_a_shared_end_does_not():
    found, _ = check([(0, 10, [("begin", 5, A, 0)]), (10, 20, [("end", 15, A, 1)]), (21, 30, [("end", 25, A, 2)])])
    assert [row[:5] for row in found] == [(-1, 0, 0, 0, 20), (0, -1, 1, 5, 15), (-1, 0, 0, 21, 30), (2, -1, 1, 21, 25)]


def test_the_end_of_a_chain_is_its_latest_end():
    found, _ = check([(0, 90, [("begin", 5, A, 0)]), (10, 20, [("begin", 15, B, 1)]), (80, 85, [])])
    assert [row[:5] for row in found] == [(-1, 0, 0, 0, 90), (0, -1, 1, 5, 90), (1, 0, 2, 15, 90)]


def test_chains_without_events_give_no_row():
    assert check([]) == ([], 0)
    assert check([(0, 10, []), (20, 30, [])]) == ([], 0)


def test_events_outside_of_their_blocks_count_at_the_border():
    found, anomalies = check(
        [(10, 20, [("begin", 5, A, 0), ("begin", 25, B, 1)]), (20, 40, [("end", 30, B, 2), ("end", 50, A, 3)])]
    )
    assert anomalies == 3
    assert [row[:5] for row in found] == [(-1, 0, 0, 10, 40), (0, -1, 1, 10, 40), (1, 0, 2, 20, 30)]


def in_parts(blocks: list[Block], sizes: list[int]) -> tuple[list[tuple], int]:
    """The rows of one builder after the other, as a reader of partitions has them: first forward, as blocks come, then
    each part once more with what its followers told."""
    edges = [0, *sorted({size for size in sizes if 0 < size < len(blocks)}), len(blocks)]
    parts = [blocks[begin:end] for begin, end in pairwise(edges)]
    states: list[bytes | None] = [None]
    told = []
    anomalies = 0
    for part in parts:
        tree, count = fed(states[-1], part)
        _, state, enclosing, continues = tree.finish_part((0, 0))
        states.append(state)
        told.append((enclosing, continues))
        anomalies += count
    found: list[tuple] = []
    later = (0, 0)
    for part, state, state_behind, (enclosing, continues) in zip(
        reversed(parts), reversed(states[:-1]), reversed(states[1:]), reversed(told), strict=True
    ):
        batch, same_state, same_enclosing, same_continues = fed(state, part)[0].finish_part(later)
        assert (same_state, same_enclosing, same_continues) == (state_behind, enclosing, continues)
        found += read(pa.record_batch(batch))
        first_id = enclosing[1] if enclosing[0] else later[1]
        later = (enclosing[0] + later[0], first_id) if continues else enclosing
    found += read(pa.record_batch(_engine.CallTree.resume(THREAD[0], states[-1] or b"").finish()))
    return sorted(found), anomalies


def fed(state: bytes | None, blocks: list[Block]) -> tuple[_engine.CallTree, int]:
    new = _engine.CallTree(THREAD[0], 0, 0, 1_000_000_000)
    tree = new if state is None else _engine.CallTree.resume(THREAD[0], state)
    feed(tree, blocks)
    return tree, tree.anomalies


@given(damaged_blocks(), st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_cut_into_parts_gives_the_rows_of_the_whole(blocks: list[Block], sizes: list[int]):
    found, anomalies = rows(blocks)
    assert in_parts(blocks, sizes) == (sorted(found), anomalies)


@given(whole_events(), st.lists(st.integers(0, 80), max_size=8), st.lists(st.integers(0, 8), max_size=8))
@settings(deadline=None)
def test_spans_are_whole_over_parts(events: list[Event], at: list[int], sizes: list[int]):
    blocks = cut(events, at)
    assert in_parts(blocks, sizes) == (sorted(rows(blocks)[0]), 0)


def test_what_is_no_state_is_refused():
    tree, _ = fed(None, [(0, 10, [("begin", 5, A, 0)])])
    _, state, _, _ = tree.finish_part((0, 0))
    for broken in [b"", state[:-1], state + b"x", b"\xff" * 200]:
        with pytest.raises(ValueError, match=r"carried state|frequency"):
            _engine.CallTree.resume("thread", broken)


def test_hash_is_the_chained_xxh32():
    # xxh32 of the empty text with seed 0 is 0x02cc5d05; the others were computed with the reference implementation
    batch, _ = build([(0, 10, [("begin", 1, A, 0), ("begin", 2, SCOPES[1], 1), ("begin", 3, A, 2)])])
    [_, first, second, again] = batch.column("hash").to_pylist()
    assert first == again != second
    assert first == chained_xxh32(A)
    assert second == chained_xxh32(SCOPES[1])


def chained_xxh32(scope: Scope) -> int:
    name, target, filename, line = scope
    seed = 0
    for part in (name.encode(), filename.encode(), target.encode(), line.to_bytes(4, "little")):
        seed = xxh32(part, seed)
    return seed


def xxh32(data: bytes, seed: int) -> int:
    """For inputs below 16 bytes, from the algorithm's description."""
    assert len(data) < 16
    mask = 0xFFFFFFFF
    primes = (2654435761, 2246822519, 3266489917, 668265263, 374761393)

    def rotate(value: int, count: int) -> int:
        return (value << count | value >> (32 - count)) & mask

    value = (seed + primes[4] + len(data)) & mask
    position = 0
    while position + 4 <= len(data):
        lane = int.from_bytes(data[position : position + 4], "little")
        value = rotate((value + lane * primes[2]) & mask, 17) * primes[3] & mask
        position += 4
    for byte in data[position:]:
        value = rotate((value + byte * primes[4]) & mask, 11) * primes[0] & mask
    value = (value ^ value >> 15) * primes[1] & mask
    value = (value ^ value >> 13) * primes[2] & mask
    return value ^ value >> 16


def test_a_million_nested_spans():
    count = 1_000_000
    tree = _engine.CallTree("deep", 0, 0, 1_000_000_000)
    scope = tree.scope("f", "t", "f.py", 1)
    tree.begin_block(0, count)
    for ticks in range(count):
        tree.on_begin(ticks, scope, ticks)
    batch = pa.record_batch(tree.finish())
    assert batch.column("depth")[-1].as_py() == count
    assert batch.column("parent")[-1].as_py() == count - 2


@pytest.mark.parametrize("cuts", [(), (MAX_OPEN + 2,), (MAX_OPEN - 1, MAX_OPEN + 3, MAX_OPEN + 6)])
def test_what_is_open_is_bounded_and_ends_close_what_is_theirs(cuts: tuple[int, ...]):
    """However blocks are cut: begins too deep are dropped with their ends, which close nothing else."""
    beyond = 4
    kinds = ["begin"] * (MAX_OPEN + beyond) + ["end"] * (beyond + 2)
    tree = _engine.CallTree("leak", 0, 0, 1_000_000_000)
    anomalies = 0
    for start, end in pairwise((0, *cuts, len(kinds))):
        if start:
            anomalies += tree.anomalies
            part, state, _, _ = tree.finish_part((0, 0))
            assert pa.record_batch(part).num_rows == 0
            assert len(state) < 21 * MAX_OPEN
            tree = _engine.CallTree.resume("leak", state)
        scope = tree.scope("f", "t", "f.py", 1)
        tree.begin_block(start, end)
        for ticks in range(start, end):
            (tree.on_begin if kinds[ticks] == "begin" else tree.on_end)(ticks, scope, ticks)
    anomalies += tree.anomalies
    batch = pa.record_batch(tree.finish_part((0, 0))[0])
    ended = list(zip(*(batch.column(name).to_pylist() for name in ("id", "parent", "duration")), strict=True))
    assert ended == [(MAX_OPEN - 2, MAX_OPEN - 3, 2 * beyond + 3), (MAX_OPEN - 1, MAX_OPEN - 2, 2 * beyond + 1)]
    assert anomalies == beyond


def test_many_missing_begins():
    count = 100_000
    tree = _engine.CallTree("wide", 0, 0, 1_000_000_000)
    scope = tree.scope("f", "t", "f.py", 1)
    tree.begin_block(0, count)
    for ticks in range(count):
        tree.on_end(ticks, scope, ticks)
    batch = pa.record_batch(tree.finish())
    assert batch.column("id").to_pylist() == [-1, *range(count - 1, -1, -1)]
    assert batch.column("depth").to_pylist() == list(range(count + 1))


def test_events_before_any_block_are_ignored():
    tree = _engine.CallTree("thread", 0, 0, 1)
    tree.on_begin(0, tree.scope("f", "", "", 0), 0)
    assert pa.record_batch(tree.finish()).num_rows == 0


def test_a_finished_tree_is_closed():
    tree = _engine.CallTree("thread", 0, 0, 1)
    with pytest.raises(ValueError, match="unknown scope 0"):
        tree.on_begin(0, 0, 0)
    tree.finish()
    with pytest.raises(RuntimeError, match="call tree is finished"):
        tree.finish()


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64, INT64, INT64, st.integers(1, 2**63 - 1))
@settings(deadline=None)
def test_ticks_to_time_is_exact(ticks: int, start_time: int, start_ticks: int, frequency: int):
    elapsed = Fraction((ticks - start_ticks) * 10**9, frequency)
    half = Fraction(1, 2) if elapsed >= 0 else Fraction(-1, 2)
    exact = start_time + int(elapsed + half)
    expected = min(max(exact, -(2**63)), 2**63 - 1)
    assert _engine.ticks_to_time(ticks, start_time, start_ticks, frequency) == expected


@pytest.mark.parametrize("frequency", [0, -1, -(2**63)])
def test_ticks_need_a_frequency(frequency: int):
    with pytest.raises(ValueError, match=f"invalid frequency {frequency}"):
        _engine.ticks_to_time(0, 0, 0, frequency)
