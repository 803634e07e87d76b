"""View set `log_entries`: one row per log event, globally or of one process."""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import LogEntriesBuilder
from micromegas.views.arrow_types import DICT_JSONB, DICT_STRING, LEADING_COLUMNS, TIMESTAMP, required
from micromegas.views.block_rows import BlockRows, EventRows, RowsRequest
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        *LEADING_COLUMNS,
        required("time", TIMESTAMP),
        required("target", DICT_STRING),
        required("level", pa.int32()),
        required("msg", pa.utf8()),
        required("properties", DICT_JSONB),
        required("process_properties", DICT_JSONB),
    ]
)


def _new_rows(_request: RowsRequest) -> BlockRows:
    return EventRows(LogEntriesBuilder())


LOG_ENTRIES = ViewSet(
    name="log_entries",
    schema=SCHEMA,
    min_column="time",
    max_column="time",
    has_global=True,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(stream_tag="log", decoder_version=1, new_rows=_new_rows),
)
