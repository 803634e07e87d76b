"""View set `net_spans`: what a process replicated over the network, one row per connection, object, call or property.

A span is one row however many blocks and partitions lie between its begin and its end; one that never ends gives none.
"""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import NetSpansBuilder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.block_rows import StatefulRows
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        required("process_id", DICT_STRING),
        required("stream_id", DICT_STRING),
        required("span_id", pa.int64()),
        required("parent_span_id", pa.int64()),
        required("depth", pa.uint32()),
        required("kind", DICT_STRING),
        required("name", DICT_STRING),
        required("connection_name", DICT_STRING),
        required("is_outgoing", pa.bool_()),
        required("begin_bits", pa.int64()),
        required("end_bits", pa.int64()),
        required("bit_size", pa.int64()),
        required("begin_time", TIMESTAMP),
        required("end_time", TIMESTAMP),
    ]
)
"""Sizes and positions in bits, positions from the start of the parent. Rows come in the order in which spans end."""


NET_SPANS = ViewSet(
    name="net_spans",
    schema=SCHEMA,
    min_column="begin_time",
    max_column="end_time",
    has_global=False,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(
        stream_tag="net",
        decoder_version=2,
        new_rows=lambda request: StatefulRows(
            NetSpansBuilder(request.state), lambda _: pa.RecordBatch.from_pylist([], SCHEMA)
        ),
        sorted_by_ticks=True,
        carries=True,
    ),
)
