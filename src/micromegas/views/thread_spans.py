"""View set `thread_spans`: the call trees of one thread, one row per span.

A span is one row with its true begin and end, however many blocks, partitions and days lie between them. While its end
is not known it ends with the last block of its tree: blocks without a gap between them are one tree, under a root of
id -1 that stands for the thread. Begins and ends that don't pair up are mended or dropped, and counted per block in
`list_block_errors()`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from micromegas._engine import ThreadSpansBuilder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.block_rows import RowsRequest
from micromegas.views.block_source import BlockSource
from micromegas.views.carried import NOTHING_LATER, CarriedOut, Later
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

MAX_SPANS = 8 * 1024 * 1024
"""Spans of one partition (a block may go beyond it): this bounds the memory of a build, whatever a sender says of how
many events its blocks have, and however many partitions a late block makes one of."""


def thread_name(stream_id: str, stream_properties: Mapping[str, str]) -> str:
    """`{thread-name}-{thread-id}` of the stream's properties, or the stream's id where they are missing."""
    name = stream_properties.get("thread-name")
    number = stream_properties.get("thread-id")
    return f"{name}-{number}" if name is not None and number is not None else stream_id


class ThreadSpanRows:
    """`CarryingRows` over the native call trees: no row is known before the last block was read."""

    def __init__(self, request: RowsRequest) -> None:
        name = thread_name(request.instance_id, request.stream_properties)
        self._builder = ThreadSpansBuilder(name, request.state)
        self._later = NOTHING_LATER if request.carried_in is None else request.carried_in.later
        self._carried_out: CarriedOut | None = None
        self._nb_objects = 0

    @property
    def pending(self) -> int:
        return 0

    @property
    def estimated_bytes(self) -> int:
        return self._nb_objects * _BYTES_PER_EVENT

    def append(self, block: BlockSource) -> list[str]:
        if self._builder.rows >= MAX_SPANS:
            place = f"block {block.block_id} of stream {block.stream_id}"
            return [f"{place}: its partition has {MAX_SPANS} spans, and takes no more"]
        self._nb_objects += block.nb_objects
        return self._builder.append(block)

    def take(self) -> pa.RecordBatch:
        return SCHEMA.empty_table().to_batches()[0]

    def finish(self) -> pa.RecordBatch:
        later = (self._later.count, self._later.first_id)
        rows, state, enclosing, continues = self._builder.finish_part(later)
        self._carried_out = CarriedOut(state, Later(*enclosing), continues)
        return pa.record_batch(rows)

    def carried_out(self) -> CarriedOut:
        if self._carried_out is None:
            raise RuntimeError("the spans are not finished")
        return self._carried_out

    def unfinished(self) -> pa.RecordBatch:
        return pa.record_batch(self._builder.finish())


THREAD_SPANS = ViewSet(
    name="thread_spans",
    schema=SCHEMA,
    min_column="begin",
    max_column="end",
    has_global=False,
    instance_kind=InstanceKind.STREAM,
    needs_range=True,
    decoded=DecodedFrom(
        stream_tag="cpu", decoder_version=2, new_rows=ThreadSpanRows, sorted_by_ticks=True, carries=True
    ),
)
