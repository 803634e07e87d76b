"""View set `thread_spans`: the call trees of one thread, one row per span, in pre-order."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from micromegas._engine import ThreadSpansBuilder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.block_rows import BlockRows, RowsRequest
from micromegas.views.block_source import BlockSource
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        required("id", pa.int64()),
        required("parent", pa.int64()),
        required("depth", pa.uint32()),
        required("hash", pa.uint32()),
        required("begin", TIMESTAMP),
        required("end", TIMESTAMP),
        required("duration", pa.int64()),
        required("name", DICT_STRING),
        required("target", DICT_STRING),
        required("filename", DICT_STRING),
        required("line", pa.uint32()),
    ]
)

# Measured size of a span inside the native tree, to keep an eye on the memory of a build.
_BYTES_PER_EVENT = 48


def thread_name(stream_id: str, stream_properties: Mapping[str, str]) -> str:
    """`{thread-name}-{thread-id}` of the stream's properties, or the stream's id where they are missing."""
    name = stream_properties.get("thread-name")
    number = stream_properties.get("thread-id")
    return f"{name}-{number}" if name is not None and number is not None else stream_id


class ThreadSpanRows:
    """`BlockRows` over the native call trees: no row is known before the last block was read."""

    def __init__(self, name: str) -> None:
        self._builder = ThreadSpansBuilder(name)
        self._nb_objects = 0

    @property
    def pending(self) -> int:
        return 0

    @property
    def estimated_bytes(self) -> int:
        return self._nb_objects * _BYTES_PER_EVENT

    def append(self, block: BlockSource) -> list[str]:
        self._nb_objects += block.nb_objects
        return self._builder.append(block)

    def take(self) -> pa.RecordBatch:
        return SCHEMA.empty_table().to_batches()[0]

    def finish(self) -> pa.RecordBatch:
        return pa.record_batch(self._builder.finish())


def _new_rows(request: RowsRequest) -> BlockRows:
    return ThreadSpanRows(thread_name(request.instance_id, request.stream_properties))


THREAD_SPANS = ViewSet(
    name="thread_spans",
    schema=SCHEMA,
    min_column="begin",
    max_column="end",
    has_global=False,
    instance_kind=InstanceKind.STREAM,
    needs_range=True,
    decoded=DecodedFrom(stream_tag="cpu", decoder_version=1, new_rows=_new_rows, sorted_by_ticks=True),
)
