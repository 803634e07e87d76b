"""JSON and CSV written by Arrow's kernels hold what Python's own writers would have written, value by value."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas.wire.row_formats import CsvWriter, JsonLinesWriter, JsonWriter, as_text, plain

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', "\n\r\t", "\x00", "\x1f\x7f", "</script>", "☃", "null", " "]
)
COLUMNS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.dictionary(pa.int32(), pa.string()), TEXT),
    (pa.int64(), INT64),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.bool_(), st.booleans()),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.timestamp("ns", "+00:00"), INT64),
    (pa.timestamp("us"), st.integers(-(2**50), 2**50)),
    (pa.binary(), st.binary(max_size=6)),
    (pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    (pa.struct([("a", pa.int64()), ('b"', pa.string())]), st.fixed_dictionaries({"a": INT64, 'b"': TEXT})),
    (pa.null(), st.none()),
]


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(0, 6))
    chosen = draw(st.lists(st.tuples(TEXT, st.sampled_from(COLUMNS)), max_size=4, unique_by=lambda each: each[0]))
    arrays = [
        pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind) for _, (kind, values) in chosen
    ]
    if not arrays:
        return pa.record_batch([pa.nulls(rows)], names=["nothing"])
    batch = pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in chosen])
    # a part of a longer one, as results are
    return batch.slice(draw(st.integers(0, rows)))


def expected(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [[plain(value) for value in column] for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.lists(batches(), min_size=1, max_size=2))
def test_json(given_batches: list[pa.RecordBatch]) -> None:
    whole, lines = io.BytesIO(), io.BytesIO()
    writers = [JsonWriter(whole), JsonLinesWriter(lines)]
    for writer in writers:
        for batch in given_batches:
            writer.write(batch)
        writer.close()
    rows = [row for batch in given_batches for row in expected(batch)]
    assert json.dumps(json.loads(whole.getvalue())) == json.dumps(rows)
    # split at newlines only: other characters that Python takes for line ends may stand within a text
    assert [json.loads(line) for line in lines.getvalue().split(b"\n")[:-1]] == json.loads(json.dumps(rows))


class Kept(io.BytesIO):
    """Keeps what was written when a writer closes it."""

    def close(self) -> None:
        pass


@settings(max_examples=100, deadline=None)
@given(batches())
def test_csv(batch: pa.RecordBatch) -> None:
    sink = Kept()
    writer = CsvWriter(sink, batch.schema)
    writer.write(batch)
    writer.close()
    text = sink.getvalue().decode()
    if "\0" in text or "\r" in text:
        return  # Python's reader takes neither within a field as it is
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == batch.schema.names
    assert len(read) == 1 + batch.num_rows
    for row, values in zip(read[1:], zip(*batch.columns, strict=True), strict=True):
        for cell, value in zip(row or [""], values, strict=True):
            if pa.types.is_floating(value.type) and value.is_valid:
                assert pa.scalar(float(cell), value.type).equals(value) or str(value.as_py()) == "nan"
            else:
                assert cell == (as_text(value) or "")


def test_durations_and_intervals() -> None:
    intervals = [(14, 3, 4_500_000_000), (0, 0, 0), (0, -1, -1), (-1, 0, 0), None]
    batch = pa.record_batch(
        {
            "duration": pa.array([1, 0, -1, 2, None], pa.duration("s")),
            "interval": pa.array(intervals, pa.month_day_nano_interval()),
        }
    )
    texts = ["P14M3DT4.5S", "PT0S", "P-1DT-0.000000001S", "P-1M", None]
    lengths = [1_000_000_000, 0, -1_000_000_000, 2_000_000_000, None]
    sink = io.BytesIO()
    writer = JsonWriter(sink)
    writer.write(batch)
    writer.close()
    assert [tuple(row.values()) for row in json.loads(sink.getvalue())] == list(zip(lengths, texts, strict=True))


@pytest.mark.parametrize("writer_of", [JsonWriter, CsvWriter])
def test_what_nanoseconds_can_not_hold(writer_of) -> None:
    """Times behind 2262 and durations of more than 292 years."""
    batch = pa.record_batch(
        {
            "s": pa.array([253402300799], pa.timestamp("s")),
            "ms": pa.array([253402300799_001], pa.timestamp("ms", "UTC")),
            "us": pa.array([-62135596800_000_000], pa.timestamp("us", "Europe/Paris")),
            "listed": pa.array([[253402300799]], pa.list_(pa.timestamp("s", "UTC"))),
            "duration": pa.array([10_000_000_000], pa.duration("s")),
        }
    )
    sink = io.BytesIO()
    writer = writer_of(sink) if writer_of is JsonWriter else writer_of(sink, batch.schema)
    writer.write(batch)
    writer.close()
    written = sink.getvalue().decode()
    for text in (
        "9999-12-31T23:59:59.000000000",
        "9999-12-31T23:59:59.001000000Z",
        "0001-01-01T00:00:00.000000000Z",
        "9999-12-31T23:59:59.000000000Z",
        "10000000000000000000",
    ):
        assert text in written


@pytest.mark.parametrize("rows", [8191, 8192, 8193, 20_000])
def test_long_batches(rows: int) -> None:
    sink = io.BytesIO()
    writer = JsonWriter(sink)
    writer.write(pa.record_batch({"n": range(rows)}))
    writer.close()
    assert json.loads(sink.getvalue()) == [{"n": n} for n in range(rows)]
