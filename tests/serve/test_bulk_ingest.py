"""Rows of bulk ingestion: nulls within properties and tags, properties that are none, batches that are too large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from micromegas.config import LakeSettings
from micromegas.lake import Lake, Replication
from micromegas.lake.rows import StreamRow
from micromegas.serve.flight import messages
from micromegas.serve.flight.bulk_ingest import BulkTable
from micromegas.serve.flight.errors import FlightError
from micromegas.serve.flight.headers import CallOptions
from micromegas.serve.flight.service import FlightSqlService

from .conftest import TableEngine

U = "8e2d1c0a-1111-4222-8333-444455556666"
PAIR = pa.struct([("key", pa.string()), ("value", pa.string())])


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Lake]:
    """An empty lake that takes copies."""
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake")) as opened:
        yield opened


def taken(replica: Lake, **columns: pa.Array) -> StreamRow:
    """The stream that a batch of one row brings."""
    needed = {
        "stream_id": pa.array([U]),
        "process_id": pa.array([U]),
        "dependencies_metadata": pa.array([b""]),
        "objects_metadata": pa.array([b""]),
    }
    BulkTable("streams").take(Replication(replica), pa.record_batch(needed | columns))
    return replica.metadata.streams([U])[U]


@pytest.mark.parametrize(
    ("properties", "kept"),
    [
        (pa.array([[("a", "1"), ("b", None)]], pa.map_(pa.string(), pa.string())), {"a": "1"}),
        (pa.array([None], pa.map_(pa.string(), pa.string())), {}),
        (
            pa.array([[{"key": "a", "value": "1"}, {"key": None, "value": "2"}, {"key": "c"}, None]], pa.list_(PAIR)),
            {"a": "1"},
        ),
        (pa.array([[{"key": 1, "value": 2, "more": 3}]]), {"1": "2"}),
        (pa.array([None], pa.list_(PAIR)), {}),
    ],
)
def test_nulls_within_properties_are_left_out(replica: Lake, properties: pa.Array, kept: dict[str, str]) -> None:
    assert taken(replica, properties=properties).properties == kept


@pytest.mark.parametrize(
    ("tags", "kept"), [(pa.array([["log", None]]), ["log"]), (pa.array([None], pa.list_(pa.string())), [])]
)
def test_nulls_within_tags_are_left_out(replica: Lake, tags: pa.Array, kept: list[str]) -> None:
    assert taken(replica, tags=tags).tags == kept


@pytest.mark.parametrize(
    "properties",
    [
        pa.array([[{"name": "a", "value": "1"}]]),
        pa.array([[{"key": "a", "value": ["1"]}]]),
        pa.array([["a"]]),
        pa.array([1]),
        pa.array(["a"]),
    ],
    ids=lambda array: str(array.type),
)
def test_what_is_no_properties_is_told(replica: Lake, properties: pa.Array) -> None:
    with pytest.raises(FlightError, match="column properties") as refused:
        taken(replica, properties=properties)
    assert refused.value.status == "INVALID_ARGUMENT"
    assert replica.metadata.count_streams() == 0


def test_a_batch_that_inflates_to_more_than_a_message_is_refused(replica: Lake) -> None:
    limit = 1_000_000
    service = FlightSqlService(TableEngine(), "test", time.monotonic, limit, Replication(replica))
    ids = {name: pa.array([U]) for name in ("block_id", "stream_id", "process_id")}
    batch = pa.record_batch(ids | {"payload": pa.array([bytes(limit)])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)

    async def requests() -> AsyncIterator[bytes]:
        command = messages.pack("CommandStatementIngest", table="payloads")
        first = messages.new("FlightDescriptor", type=messages.DESCRIPTOR_TYPE_CMD, cmd=command)
        for message in pa.ipc.MessageReader.open_stream(sink.getvalue()):
            data = messages.new("FlightData", data_header=bytes(message.metadata), data_body=bytes(message.body or b""))
            if message.type == "schema":
                data.flight_descriptor.CopyFrom(first)
            yield data.SerializeToString()

    with pytest.raises(FlightError, match=f"more than {limit} bytes"):
        asyncio.run(service.do_put(requests(), CallOptions(administers=True)))
    assert list(replica.objects.list("blobs")) == []
