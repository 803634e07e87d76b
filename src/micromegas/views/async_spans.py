"""View set `async_spans`: the asynchronous spans of one process, begin and end joined, one row per span.

The two may be told by different threads, in any order and days apart. A span is a row of the state `closed` once both
are known, with the begin's stream, parent, depth and scope. Until then it is `open`, and ends with the last block of
the process; an end whose begin never arrived is `begin_lost`, and begins and ends at that moment. Of an id that begins
or ends twice while its span is open, the first counts; the others are told of in `list_block_errors()`.
"""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import AsyncSpansBuilder
from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, required
from micromegas.views.block_rows import StatefulRows
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        required("stream_id", DICT_STRING),
        required("span_id", pa.int64()),
        required("parent_span_id", pa.int64()),
        required("depth", pa.uint32()),
        required("hash", pa.uint32()),
        required("begin", TIMESTAMP),
        required("end", TIMESTAMP),
        required("duration", pa.int64()),
        required("state", DICT_STRING),
        required("name", DICT_STRING),
        required("target", DICT_STRING),
        required("filename", DICT_STRING),
        required("line", pa.uint32()),
    ]
)
"""`duration` in ns; `state` is `closed`, `open` or `begin_lost`; rows come in the order in which spans end."""

ASYNC_SPANS = ViewSet(
    name="async_spans",
    schema=SCHEMA,
    min_column="begin",
    max_column="end",
    has_global=False,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(
        stream_tag="cpu",
        decoder_version=1,
        new_rows=lambda request: StatefulRows(
            AsyncSpansBuilder(request.state), lambda builder: pa.record_batch(builder.unpaired())
        ),
        carries=True,
    ),
)
