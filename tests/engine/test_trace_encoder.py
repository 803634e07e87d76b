"""`TraceEncoder` on rows that no recording has: spans that overlap in every way, names without end, disorder."""

from __future__ import annotations

from random import Random
from typing import Any

import pyarrow as pa
import pytest
from traces.processor import loaded

from micromegas._engine import TraceEncoder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP

SPANS = pa.schema(
    [
        ("stream_id", DICT_STRING),
        ("id", pa.int64()),
        ("parent", pa.int64()),
        ("depth", pa.uint32()),
        ("begin", TIMESTAMP),
        ("end", TIMESTAMP),
        ("name", DICT_STRING),
        ("target", DICT_STRING),
        ("filename", DICT_STRING),
        ("line", pa.uint32()),
    ]
)
Row = tuple[Any, ...]


def batch(rows: list[Row], stream_id: str = "") -> pa.RecordBatch:
    """Rows of (id, parent, depth, begin, end, name)."""
    columns = [list(each) for each in zip(*rows, strict=True)]
    texts = [[text] * len(rows) for text in (stream_id, "target", "file.py")]
    arrays = [texts[0], *columns[:6], *texts[1:], [7] * len(rows)]
    return pa.record_batch(
        [pa.array(values).cast(field.type) for values, field in zip(arrays, SPANS, strict=True)], schema=SPANS
    )


def encoded(
    batches: list[pa.RecordBatch], kind: str, max_bytes: int, flows: pa.RecordBatch | None = None
) -> list[bytes]:
    encoder = TraceEncoder("process", "program", [], 0, [kind])
    encoder.add_thread("thread", "main", 2**40)
    if flows is not None:
        for part in (flows.slice(5), flows.slice(0, 5)):
            encoder.add_flows(part)
    rows = iter(batches)
    chunks = []
    while True:
        if (wanted := encoder.advance(max_bytes)) is not None:
            encoder.feed(wanted, next(rows, None))
        elif chunk := encoder.take():
            chunks.append(chunk)
        else:
            return chunks


@pytest.mark.parametrize("seed", [1, 2])
def test_async_spans_that_overlap_in_every_way(seed: int) -> None:
    random = Random(seed)
    spans: list[Row] = []
    for number in range(1, 400):
        parent = random.choice(spans) if spans and random.random() < 0.7 else (0, 0, 0, 1000, 1000, "")
        begin = random.randint(parent[3], parent[3] + 300)
        end = begin + random.choice([0, 1, 1, random.randint(0, 50), random.randint(0, 2000)])
        spans.append((number, parent[0], parent[2] + 1, begin, end, f"s{number}"))
    spans.sort(key=lambda row: (row[3], row[2], row[0]))
    known = {row[0] for row in spans}
    pairs = [(row[1], row[0]) for row in spans if row[1] in known]
    flows = pa.record_batch({"parent": [pair[0] for pair in pairs], "id": [pair[1] for pair in pairs]})
    cut = random.randint(1, len(spans) - 1)
    chunks = encoded([batch(spans[:cut]), batch(spans[cut:])], "async", 2000, flows)
    assert len(chunks) > 5
    assert b"".join(chunks) == b"".join(encoded([batch(spans)], "async", 10**9, flows))
    with loaded(b"".join(chunks)) as trace:
        shown = trace.rows(
            "SELECT extract_arg(arg_set_id, 'debug.span_id') AS id,"
            " extract_arg(arg_set_id, 'debug.parent_span_id') AS p, ts, ts + dur AS e, name FROM slice"
        )
        assert sorted(shown) == sorted((row[0], row[1], row[3], row[4], row[5]) for row in spans)
        inside = trace.rows(
            "SELECT extract_arg(s.arg_set_id, 'debug.parent_span_id') AS told,"
            " extract_arg(o.arg_set_id, 'debug.span_id') AS outer FROM slice s JOIN slice o ON s.parent_id = o.id"
        )
        assert inside
        assert all(told == outer for told, outer in inside)
        arrows = trace.rows(
            "SELECT extract_arg(o.arg_set_id, 'debug.span_id') AS p, extract_arg(i.arg_set_id, 'debug.span_id') AS c"
            " FROM flow JOIN slice o ON slice_out = o.id JOIN slice i ON slice_in = i.id"
        )
        assert sorted(arrows) == sorted(pairs)


def test_names_without_end() -> None:
    rows = [(number, -1, 1, 10 * number, 10 * number + 5, f"name {number}") for number in range(70_000)]
    batches = [batch(rows[start : start + 7_000], "thread") for start in range(0, len(rows), 7_000)]
    with loaded(b"".join(encoded(batches, "threads", 100_000))) as trace:
        assert trace.rows("SELECT count(*) AS n, count(DISTINCT name) AS names, min(dur) AS least FROM slice") == [
            (70_000, 70_000, 5)
        ]
        assert trace.rows("SELECT count(*) AS n FROM slice WHERE name <> 'name ' || (ts / 10)") == [(0,)]


@pytest.mark.parametrize(
    ("rows", "stream_id", "message"),
    [
        ([(1, -1, 1, 20, 30, "a"), (2, -1, 1, 10, 15, "b")], "thread", "threads are not in order of time"),
        ([(1, -1, 1, 20, 30, "a")], "other", "spans of the unknown thread other"),
        ([(1, -1, 1, None, 30, "a")], "thread", "column begin holds NULL"),
    ],
)
def test_rows_that_can_not_be_are_refused(rows: list[Row], stream_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoded([batch(rows, stream_id)], "threads", 10_000)


def test_what_was_not_asked_for_is_refused() -> None:
    encoder = TraceEncoder("process", "program", [], 0, ["threads"])
    assert encoder.advance(10_000) == "threads"
    with pytest.raises(ValueError, match="no rows of logs are wanted"):
        encoder.feed("logs", None)
    with pytest.raises(ValueError, match="none of threads, async, measures, logs"):
        encoder.feed("spans", None)
    with pytest.raises(ValueError, match="rows without a column"):
        encoder.feed("threads", pa.record_batch({"id": [1]}))
