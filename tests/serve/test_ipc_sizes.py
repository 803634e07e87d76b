"""Batches that come to more than they look like are refused before they are inflated."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa
import pytest

from micromegas.serve.flight.errors import FlightError
from micromegas.serve.flight.flight_data import IncomingBatches
from micromegas.serve.flight.ipc_sizes import inflated_size

COMPRESSIONS = [None, "lz4", "zstd"]
ROWS = 100_000
PLAIN = pa.record_batch({"n": pa.array([7] * ROWS, pa.int64()), "text": ["x" * 20] * ROWS})
WORDS = pa.record_batch({"word": pa.array([f"{'y' * 100}{n}" for n in range(ROWS)]).dictionary_encode()})


def messages(compression: str | None, *batches: pa.RecordBatch, deltas: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Header and body of each message of a stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    for message in pa.ipc.MessageReader.open_stream(sink.getvalue()):
        yield bytes(message.metadata), bytes(message.body or b"")


def take(incoming: IncomingBatches, sent: Iterator[tuple[bytes, bytes]]) -> list[pa.RecordBatch]:
    return [batch for message in sent if (batch := incoming.take(*message)) is not None]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("batch", [PLAIN, WORDS], ids=["plain", "dictionary"])
def test_the_size_is_that_of_the_buffers(batch: pa.RecordBatch, compression: str | None) -> None:
    size = sum(inflated_size(*message).size for message in messages(compression, batch))
    # absent validity is not sent, and each buffer may be padded
    assert math.isclose(size, batch.get_total_buffer_size(), rel_tol=0.02)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("batch", [PLAIN, WORDS], ids=["plain", "dictionary"])
def test_what_comes_to_too_much_is_refused(batch: pa.RecordBatch, compression: str | None) -> None:
    size = sum(inflated_size(*message).size for message in messages(compression, batch))
    assert take(IncomingBatches(size), messages(compression, batch, batch)) == [batch, batch]
    before = pa.total_allocated_bytes()
    with pytest.raises(FlightError, match=f"more than {size - 1} bytes") as refused:
        take(IncomingBatches(size - 1), messages(compression, batch))
    assert refused.value.status == "INVALID_ARGUMENT"
    if compression is not None and batch is PLAIN:
        assert pa.total_allocated_bytes() - before < size / 2


@pytest.mark.parametrize("deltas", [False, True])
def test_dictionaries_count_as_long_as_they_are_held(deltas: bool) -> None:
    words = [str(n) * 1000 for n in range(10)]
    batches = [
        pa.record_batch({"word": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), words[: count + 1])})
        for count in range(10)
    ]
    whole = inflated_size(*list(messages("zstd", batches[-1]))[1]).size
    assert take(IncomingBatches(whole + 1000), messages("zstd", *batches, deltas=deltas)) == batches
    with pytest.raises(FlightError, match="more than"):
        take(IncomingBatches(whole - 500), messages("zstd", *batches, deltas=deltas))


def test_dictionaries_that_no_batch_reads_are_counted_together() -> None:
    schema, dictionary, _ = messages("zstd", WORDS)
    incoming = IncomingBatches(3 * inflated_size(*dictionary).size)
    incoming.take(*schema)
    for _ in range(3):
        incoming.take(*dictionary)
    with pytest.raises(FlightError, match="more than"):
        incoming.take(*dictionary)


def test_what_was_no_batch_has_no_size() -> None:
    schema, _ = messages(None, PLAIN)
    assert inflated_size(*schema).size == 0


@pytest.mark.parametrize("said", [None, {"ARROW:experimental_compression": "zstd"}])
def test_how_older_releases_said_that_a_body_is_compressed_is_refused(said: dict[str, str] | None) -> None:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, PLAIN.schema, options=options) as writer:
        writer.write_batch(PLAIN, custom_metadata=said)
    sent = (
        (bytes(each.metadata), bytes(each.body or b"")) for each in pa.ipc.MessageReader.open_stream(sink.getvalue())
    )
    incoming = IncomingBatches(PLAIN.get_total_buffer_size() * 2)
    if said is None:
        assert take(incoming, sent) == [PLAIN]
    else:
        with pytest.raises(FlightError, match="custom metadata"):
            take(incoming, sent)
