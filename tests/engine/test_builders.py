"""The builders against rows computed in plain Python from what the senders' own parsers read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from e2e.recordings import SCENARIOS, RecordedBlock, recording
from e2e.reference import (
    EventRows,
    ProcessReference,
    Row,
    async_event_rows,
    comparable_double,
    in_seconds,
    log_rows,
    measure_rows,
    nanoseconds,
    processes_of,
    thread_span_rows,
)
from engine.jsonb_reference import encode

from micromegas import _core
from micromegas._engine import AsyncEventsBuilder, LogEntriesBuilder, MeasuresBuilder, ThreadSpansBuilder

INSERT_TIME = 1_800_000_000_000_000_123
TEXT = pa.dictionary(pa.int32(), pa.string())
JSONB = pa.dictionary(pa.int32(), pa.binary())
TIME = pa.timestamp("ns", "+00:00")


def schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, data_type, nullable=False) for name, data_type in columns.items()])


ORIGIN = {
    "process_id": TEXT,
    "stream_id": TEXT,
    "block_id": TEXT,
    "insert_time": TIME,
    "exe": TEXT,
    "username": TEXT,
    "computer": TEXT,
    "time": TIME,
    "target": TEXT,
}
LOG_ENTRIES = schema(**ORIGIN, level=pa.int32(), msg=pa.string(), properties=JSONB, process_properties=JSONB)
MEASURES = schema(**ORIGIN, name=TEXT, unit=TEXT, value=pa.float64(), properties=JSONB, process_properties=JSONB)
ASYNC_EVENTS = schema(
    stream_id=TEXT,
    block_id=TEXT,
    time=TIME,
    event_type=TEXT,
    span_id=pa.int64(),
    parent_span_id=pa.int64(),
    depth=pa.uint32(),
    hash=pa.uint32(),
    name=TEXT,
    filename=TEXT,
    target=TEXT,
    line=pa.uint32(),
)
THREAD_SPANS = schema(
    id=pa.int64(),
    parent=pa.int64(),
    depth=pa.uint32(),
    hash=pa.uint32(),
    begin=TIME,
    end=TIME,
    duration=pa.int64(),
    name=TEXT,
    target=TEXT,
    filename=TEXT,
    line=pa.uint32(),
)


class Sources:
    """The blocks of a recording as the builders take them."""

    def __init__(self, name: str) -> None:
        self.recording = recording(name)
        self.processes = processes_of([self.recording])
        self.fields: dict[str, tuple[Any, ...]] = {}
        self.layouts: dict[str, tuple[bytes, bytes]] = {}
        for request in self.recording.requests:
            if request.path.endswith("insert_block"):
                fields = _core.parse_block(request.body)
                self.fields[fields[0]] = fields
            elif request.path.endswith("insert_stream"):
                stream = _core.parse_stream(request.body)
                self.layouts[stream[1]] = stream[2:4]

    def source(self, process: ProcessReference, block: RecordedBlock) -> SimpleNamespace:
        block_id, stream_id, process_id, _, _, begin_ticks, end_ticks, payload, object_offset, _ = self.fields[
            block.header["block_id"]
        ]
        dependencies_metadata, objects_metadata = self.layouts[stream_id]
        return SimpleNamespace(
            process_id=process_id,
            stream_id=stream_id,
            block_id=block_id,
            insert_time=INSERT_TIME,
            **{key: process.facts[key] for key in ("exe", "username", "computer", "start_ticks")},
            process_properties=process.facts["properties"],
            start_time=nanoseconds(process.facts["start_time"]),
            frequency=process.frequency,
            begin_ticks=begin_ticks,
            end_ticks=end_ticks,
            object_offset=object_offset,
            dependencies_metadata=dependencies_metadata,
            objects_metadata=objects_metadata,
            payload=payload,
        )

    def tagged(self, tag: str) -> list[tuple[ProcessReference, RecordedBlock]]:
        return [(process, block) for process in self.processes.values() for block in process.blocks_tagged(tag)]


@pytest.fixture(params=SCENARIOS)
def sources(request: pytest.FixtureRequest) -> Sources:
    return Sources(request.param)


def columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """Plain values; times as ns."""
    plain = {}
    for field in batch.schema:
        column = batch.column(field.name)
        plain[field.name] = (column.cast(pa.int64()) if field.type == TIME else column).to_pylist()
    return plain


def expected_rows(rows: EventRows, blocks: Iterable[tuple[ProcessReference, RecordedBlock]]) -> list[Row]:
    return [row for process, block in blocks for row in rows(process, block)]


def with_jsonb(rows: Iterable[Row]) -> Iterator[Row]:
    """Property sets as the bytes that a column holds."""
    for row in rows:
        yield tuple(encode(dict(value)) if isinstance(value, frozenset) else value for value in row)


def check_dictionaries(batch: pa.RecordBatch) -> None:
    batch.validate(full=True)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            values = column.dictionary.to_pylist()
            assert len(values) == len(set(values))


def built(
    builder: Any, sources: Sources, blocks: Iterable[tuple[ProcessReference, RecordedBlock]]
) -> tuple[pa.RecordBatch, dict[str, list[Any]]]:
    for process, block in blocks:
        assert builder.append(sources.source(process, block)) == []
    times = (builder.min_time, builder.max_time)
    rows = builder.rows
    assert builder.estimated_bytes > 0 or rows == 0
    batch = pa.record_batch(builder.take())
    assert batch.num_rows == rows
    check_dictionaries(batch)
    plain = columns(batch)
    assert times == ((min(plain["time"]), max(plain["time"])) if rows else (None, None))
    assert (builder.rows, builder.estimated_bytes, builder.min_time, builder.max_time) == (0, 0, None, None)
    return batch, plain


def test_log_entries(sources: Sources) -> None:
    blocks = sources.tagged("log")
    batch, plain = built(LogEntriesBuilder(), sources, blocks)
    assert batch.schema == LOG_ENTRIES
    assert plain.pop("insert_time") == [INSERT_TIME] * batch.num_rows
    assert list(zip(*plain.values(), strict=True)) == list(with_jsonb(expected_rows(log_rows, blocks)))


def test_measures(sources: Sources) -> None:
    blocks = sources.tagged("metrics")
    batch, plain = built(MeasuresBuilder(), sources, blocks)
    assert batch.schema == MEASURES
    plain.pop("insert_time")
    plain["value"] = [
        in_seconds(value) if unit == "seconds" else comparable_double(value)
        for value, unit in zip(plain["value"], plain["unit"], strict=True)
    ]
    assert list(zip(*plain.values(), strict=True)) == list(with_jsonb(expected_rows(measure_rows, blocks)))


def test_async_events(sources: Sources) -> None:
    blocks = sources.tagged("cpu")
    batch, plain = built(AsyncEventsBuilder(), sources, blocks)
    assert batch.schema == ASYNC_EVENTS
    assert list(zip(*plain.values(), strict=True)) == expected_rows(async_event_rows, blocks)


def test_thread_spans(sources: Sources) -> None:
    by_stream: dict[str, list[tuple[ProcessReference, RecordedBlock]]] = {}
    for process, block in sources.tagged("cpu"):
        by_stream.setdefault(block.header["stream_id"], []).append((process, block))
    for stream_id, blocks in by_stream.items():
        blocks.sort(key=lambda pair: (pair[1].header["begin_ticks"], pair[1].header["end_ticks"]))
        process = blocks[0][0]
        builder = ThreadSpansBuilder(process.thread_name(stream_id))
        for _, block in blocks:
            assert builder.append(sources.source(process, block)) == []
        rows = builder.rows
        batch = pa.record_batch(builder.finish())
        check_dictionaries(batch)
        assert batch.schema == THREAD_SPANS
        assert batch.num_rows == rows
        assert Counter(zip(*columns(batch).values(), strict=True)) == thread_span_rows(process, stream_id)
        with pytest.raises(RuntimeError, match="are finished"):
            builder.finish()
        with pytest.raises(RuntimeError, match="are finished"):
            builder.append(sources.source(process, blocks[0][1]))


BUILDERS: list[tuple[Callable[[], Any], str]] = [
    (LogEntriesBuilder, "log"),
    (MeasuresBuilder, "metrics"),
    (AsyncEventsBuilder, "cpu"),
]


@pytest.mark.parametrize(("make", "tag"), BUILDERS)
def test_all_the_senders_in_one_row_group(make: Callable[[], Any], tag: str) -> None:
    """Dictionaries are shared; a block's rows don't depend on those before it, nor on the builder's past."""
    blocks = [
        (sources, *pair)
        for sources in map(Sources, SCENARIOS)
        if sources.recording.name != "service"
        for pair in sources.tagged(tag)
    ]
    random.Random(7).shuffle(blocks)
    together, alone = make(), make()
    apart = []
    for sources, process, block in blocks:
        assert together.append(sources.source(process, block)) == []
        alone.append(sources.source(process, block))
        apart.append(columns(pa.record_batch(alone.take())))
    batch = pa.record_batch(together.take())
    check_dictionaries(batch)
    for name, values in columns(batch).items():
        assert repr(values) == repr([value for part in apart for value in part[name]])


@pytest.mark.parametrize("make", [LogEntriesBuilder, MeasuresBuilder, AsyncEventsBuilder])
def test_empty(make: Callable[[], Any]) -> None:
    assert pa.record_batch(make().take()).num_rows == 0
    assert pa.record_batch(ThreadSpansBuilder("main").finish()).schema == THREAD_SPANS
