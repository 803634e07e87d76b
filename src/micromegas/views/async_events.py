"""View set `async_events`: one row per begin or end of an asynchronous span, of one process."""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import AsyncEventsBuilder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.block_rows import BlockRows, EventRows, RowsRequest
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        required("stream_id", DICT_STRING),
        required("block_id", DICT_STRING),
        required("time", TIMESTAMP),
        required("event_type", DICT_STRING),
        required("span_id", pa.int64()),
        required("parent_span_id", pa.int64()),
        required("depth", pa.uint32()),
        required("hash", pa.uint32()),
        required("name", DICT_STRING),
        required("filename", DICT_STRING),
        required("target", DICT_STRING),
        required("line", pa.uint32()),
    ]
)


def _new_rows(_request: RowsRequest) -> BlockRows:
    return EventRows(AsyncEventsBuilder())


ASYNC_EVENTS = ViewSet(
    name="async_events",
    schema=SCHEMA,
    min_column="time",
    max_column="time",
    has_global=False,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(stream_tag="cpu", decoder_version=1, new_rows=_new_rows),
)
