"""What leaves as FlightData is byte for byte what Arrow's own writer and protobuf would make of it, without a copy of
the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micromegas._transport import Body, Layout
from micromegas.serve.flight import messages
from micromegas.serve.flight.flight_data import FlightData, FlightDataWriter, schema_stream

on_any_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.timestamp("ns", tz="+00:00"), st.integers(0, 2**62)),
    (pa.decimal128(20, 3), st.decimals(-1000, 1000, places=3)),
    (pa.month_day_nano_interval(), st.tuples(*[st.integers(-100, 100)] * 3)),
    (pa.binary(5), st.binary(min_size=5, max_size=5)),
    (pa.string(), st.text(max_size=20)),
    (pa.binary(), st.binary(max_size=20)),
]


def lists(kind: pa.DataType, values: st.SearchStrategy[Any]) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    return pa.list_(kind), st.lists(values | st.none(), max_size=4)


def fixed_lists(kind: pa.DataType, values: st.SearchStrategy[Any]) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    return pa.list_(kind, 2), st.lists(values | st.none(), min_size=2, max_size=2)


def structs(kind: pa.DataType, values: st.SearchStrategy[Any]) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    return pa.struct({"a": kind, "b": pa.int16()}), st.fixed_dictionaries({"a": values | st.none(), "b": st.just(7)})


def maps(kind: pa.DataType, values: st.SearchStrategy[Any]) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    return pa.map_(pa.string(), kind), st.lists(st.tuples(st.text(max_size=3), values), max_size=3)


NESTINGS = [lists, fixed_lists, structs, maps]


@st.composite
def columns(draw: st.DrawFn, rows: int, is_plain: bool) -> pa.Array:
    kind, values = draw(st.sampled_from(SCALARS))
    for nest in draw(st.lists(st.sampled_from(NESTINGS), max_size=0 if is_plain else 2)):
        kind, values = nest(kind, values)
    # a few values again and again: drawing one takes much longer than to send it
    pool = draw(st.lists(values | st.none(), min_size=1, max_size=5))
    column = pa.array([pool[row * row % len(pool)] for row in range(rows)], kind)
    if is_plain:
        return column
    if not pa.types.is_nested(kind) and not pa.types.is_null(kind) and kind != pa.month_day_nano_interval():
        column = column.dictionary_encode() if draw(st.booleans()) else column
    return column


@st.composite
def wholes(draw: st.DrawFn, is_plain: bool) -> pa.RecordBatch:
    rows = draw(st.integers(0, 40))
    arrays = draw(st.lists(columns(rows, is_plain), max_size=4))
    return pa.RecordBatch.from_arrays(arrays, names=[f"c{number}" for number in range(len(arrays))])


@st.composite
def streams(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """Batches of one schema: slices from anywhere in one, empty ones among them."""
    whole = draw(wholes(draw(st.booleans())))
    spans = st.tuples(st.integers(0, whole.num_rows), st.integers(0, whole.num_rows))
    return [whole.slice(*span) for span in draw(st.lists(spans, min_size=1, max_size=4))]


def copied(batches: list[pa.RecordBatch], compression: str | None) -> Iterator[bytes]:
    """The same by Arrow and protobuf, with a copy for each."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    for message in pa.ipc.MessageReader.open_stream(sink.getvalue()):
        body = b"" if message.body is None else bytes(message.body)
        # a protobuf field without bytes isn't sent
        yield messages.new("FlightData", data_header=bytes(message.metadata), data_body=body).SerializeToString()


def frames_of(batches: list[pa.RecordBatch], compression: str | None = None) -> list[FlightData]:
    writer = FlightDataWriter(batches[0].schema, compression)
    return [writer.schema_frame(), *(frame for batch in batches for frame in writer.batch_frames(batch))]


def joined(frame: FlightData) -> bytes:
    return b"".join(bytes(part) for part in frame.parts)


@on_any_machine
@given(streams(), st.sampled_from([None, "lz4", "zstd"]))
def test_frames_are_what_arrow_and_protobuf_write(batches: list[pa.RecordBatch], compression: str | None) -> None:
    frames, expected = frames_of(batches, compression), list(copied(batches, compression))
    assert [frame.size for frame in frames] == [len(joined(frame)) for frame in frames]
    assert len(frames) == len(expected)
    for frame, arrows in zip(frames, expected, strict=True):
        # Arrow fills up the buffers of slices with what lies behind them
        if not any(isinstance(part, Body) for part in frame.parts):
            assert joined(frame) == arrows


@on_any_machine
@given(wholes(True))
def test_what_arrow_does_not_write_is_what_it_would(batch: pa.RecordBatch) -> None:
    frames = frames_of([batch, batch])
    assert [joined(frame) for frame in frames] == list(copied([batch, batch], None))
    has_body = batch.num_rows > 0 and not all(map(pa.types.is_null, batch.schema.types))
    assert isinstance(frames[2].parts[-1], Body) == has_body


@on_any_machine
@given(wholes(True), st.integers(0, 40))
def test_nothing_beside_a_slice_is_sent(batch: pa.RecordBatch, first: int) -> None:
    """Of bitmaps no bit, and behind a buffer zeros: as of a copy of the rows."""
    part = batch.slice(first, 13)
    alone = pa.record_batch([pa.array(column.to_pylist(), column.type) for column in part.columns], part.schema)
    texts = [joined(frames_of([batch, rows])[-1]) for rows in (part, alone)]
    assert (texts[0] == texts[1]) or part.num_rows == 0


@on_any_machine
@given(streams())
def test_rows_come_back_as_they_were(batches: list[pa.RecordBatch]) -> None:
    received = [messages.parse("FlightData", joined(frame)) for frame in frames_of(batches)]
    stream = schema_stream(batches[0].schema)[:-8]
    for message in received[1:]:
        length = len(message.data_header).to_bytes(4, "little")
        stream += b"\xff\xff\xff\xff" + length + message.data_header + message.data_body
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    assert table == pa.Table.from_batches(batches)


def test_rows_are_not_copied() -> None:
    numbers, texts = pa.array(range(1000), pa.int64()), pa.array(["text"] * 1000)
    batch = pa.record_batch({"numbers": numbers, "texts": texts}).slice(8, 500)
    writer = FlightDataWriter(batch.schema)
    (frame,) = writer.batch_frames(batch)
    values, offsets, data = (part for part in frame.parts if isinstance(part, pa.Buffer))
    assert values.address == numbers.buffers()[1].address + 8 * 8
    assert (values.size, offsets.size) == (500 * 8, 501 * 4)
    assert data.address == texts.buffers()[2].address + 8 * len("text")


def test_rows_of_later_batches_are_not_copied_either() -> None:
    rows = bytearray(8 * 1000)
    numbers = pa.Array.from_buffers(pa.int64(), 1000, [None, pa.py_buffer(rows)])
    batch = pa.record_batch({"numbers": numbers}).slice(8, 500)
    frame = frames_of([batch, batch])[-1]
    rows[8 * 8] = 7
    assert joined(frame).endswith(b"\7" + bytes(8 * 500 - 1))


def test_another_schema_is_refused_however_it_comes() -> None:
    plain, other = pa.record_batch({"c": [1, 2]}), pa.record_batch({"c": ["text"]})
    writer = FlightDataWriter(plain.schema)
    for _ in range(2):
        list(writer.batch_frames(plain))
        with pytest.raises(pa.ArrowInvalid, match="schema"):
            list(writer.batch_frames(other))


@pytest.mark.parametrize(
    ("columns", "places", "why"),
    [
        ([64], (0, 8, 16, 1000), "another schema"),
        ([64], (2**64 - 8, 8, 16, 32), "another schema"),
        ([12], (0, 8, 16, 32), "12 bits"),
    ],
)
def test_a_layout_is_looked_at(columns: list[int], places: tuple[int, int, int, int], why: str) -> None:
    schema = pa.schema({"c": pa.int64()})
    with pytest.raises(ValueError, match=why):
        Layout(schema, columns, bytes(100), places)


def test_a_layout_takes_batches_of_its_schema_only() -> None:
    schema = pa.schema({"c": pa.int64()})
    layout = Layout(schema, [64], bytes(100), (0, 8, 16, 32))
    with pytest.raises(ValueError, match="another schema"):
        layout.message(pa.record_batch({"c": ["text"]}))
    # told wrong, it doesn't read what isn't there
    for columns in ([None], [64, 64], []):
        with pytest.raises(ValueError, match="aren't as its schema says"):
            Layout(schema, columns, bytes(200), (0, 8, 16, 80)).message(pa.record_batch({"c": [1]}, schema))


def test_a_dictionary_is_sent_when_it_changed() -> None:
    first, second = pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()
    writer = FlightDataWriter(pa.schema({"c": first.type}))
    counts = [len(list(writer.batch_frames(pa.record_batch({"c": column})))) for column in (first, first, second)]
    assert counts == [2, 1, 2]


def test_what_arrow_refuses_leaves_no_pieces_behind() -> None:
    schema = pa.schema({"c": pa.int64()})
    writer = FlightDataWriter(schema)
    with pytest.raises(pa.ArrowInvalid):
        list(writer.batch_frames(pa.record_batch({"c": ["no number"]})))
    good = pa.record_batch({"c": [1]}, schema)
    assert [joined(frame) for frame in writer.batch_frames(good)] == list(copied([good], None))[1:]
