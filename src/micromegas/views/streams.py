"""View set `streams`: one row per stream, always in its newest state. Read from the metadata database."""

from __future__ import annotations

import pyarrow as pa

from micromegas.views.arrow_types import DICT_JSONB, TAGS, TIMESTAMP, optional
from micromegas.views.view_set import ViewSet

SCHEMA = pa.schema(
    [
        optional("stream_id", pa.utf8()),
        optional("process_id", pa.utf8()),
        optional("dependencies_metadata", pa.binary()),
        optional("objects_metadata", pa.binary()),
        optional("tags", TAGS),
        optional("properties", DICT_JSONB),
        optional("insert_time", TIMESTAMP),
        optional("format", pa.utf8()),
        optional("last_update_time", TIMESTAMP),
    ]
)

STREAMS = ViewSet(
    name="streams", schema=SCHEMA, min_column="insert_time", max_column="last_update_time", has_global=True
)
