"""View set `otel_spans`: one row per span that came by OTLP, globally or of one process.

The global instance answers for a trace that crosses processes.
"""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import OtelSpansBuilder
from micromegas.views.arrow_types import DICT_JSONB, DICT_STRING, TIMESTAMP, optional, required
from micromegas.views.block_rows import BlockRows, EventRows, RowsRequest
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        required("process_id", DICT_STRING),
        required("stream_id", DICT_STRING),
        required("block_id", DICT_STRING),
        required("insert_time", TIMESTAMP),
        required("exe", pa.utf8()),
        required("username", pa.utf8()),
        required("computer", pa.utf8()),
        required("process_properties", DICT_JSONB),
        required("trace_id", pa.binary(16)),
        required("span_id", pa.binary(8)),
        optional("parent_span_id", pa.binary(8)),
        required("start_time", TIMESTAMP),
        required("end_time", TIMESTAMP),
        required("duration", pa.int64()),
        required("name", DICT_STRING),
        required("kind", DICT_STRING),
        required("status", DICT_STRING),
        optional("status_message", pa.utf8()),
        required("properties", DICT_JSONB),
        required("events", pa.binary()),
        required("links", pa.binary()),
    ]
)
"""`duration` in ns. `events` is a JSONB array of {time (ns since the epoch), name, attributes}, `links` one of
{trace_id, span_id (both hexadecimal), attributes}. A root has no `parent_span_id`."""


def _new_rows(_request: RowsRequest) -> BlockRows:
    return EventRows(OtelSpansBuilder())


OTEL_SPANS = ViewSet(
    name="otel_spans",
    schema=SCHEMA,
    min_column="start_time",
    max_column="end_time",
    has_global=True,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(stream_tag="trace", decoder_version=1, new_rows=_new_rows),
)
