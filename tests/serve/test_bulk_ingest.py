"""Rows of bulk ingestion: nulls within properties and tags, and properties that are none."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

from micromegas.serve.flight.bulk_ingest import BulkTable
from micromegas.serve.flight.errors import FlightError
from micromegas.wire import Stream

U = "8e2d1c0a-1111-4222-8333-444455556666"
PAIR = pa.struct([("key", pa.string()), ("value", pa.string())])


def taken(**columns: pa.Array) -> Stream:
    """The stream that a batch of one row brings."""
    needed = {
        "stream_id": pa.array([U]),
        "process_id": pa.array([U]),
        "dependencies_metadata": pa.array([b""]),
        "objects_metadata": pa.array([b""]),
    }
    replication: Any = mock.Mock()
    BulkTable("streams").take(replication, pa.record_batch(needed | columns))
    ((stream,),) = replication.take_streams.call_args.args
    assert isinstance(stream, Stream)
    return stream


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
def test_nulls_within_properties_are_left_out(properties: pa.Array, kept: dict[str, str]) -> None:
    assert taken(properties=properties).properties == kept


def test_nulls_within_tags_are_left_out() -> None:
    assert taken(tags=pa.array([["log", None]])).tags == ["log"]
    assert taken(tags=pa.array([None], pa.list_(pa.string()))).tags == []


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
def test_what_is_no_properties_is_told(properties: pa.Array) -> None:
    with pytest.raises(FlightError, match="column properties") as refused:
        taken(properties=properties)
    assert refused.value.status == "INVALID_ARGUMENT"
