"""View set `processes`: one row per process, always in its newest state. Read from the metadata database."""

from __future__ import annotations

import pyarrow as pa

from micromegas.views.arrow_types import DICT_JSONB, TIMESTAMP, optional
from micromegas.views.view_set import ViewSet

SCHEMA = pa.schema(
    [
        optional("process_id", pa.utf8()),
        optional("exe", pa.utf8()),
        optional("username", pa.utf8()),
        optional("realname", pa.utf8()),
        optional("computer", pa.utf8()),
        optional("distro", pa.utf8()),
        optional("cpu_brand", pa.utf8()),
        optional("tsc_frequency", pa.int64()),
        optional("start_time", TIMESTAMP),
        optional("start_ticks", pa.int64()),
        optional("insert_time", TIMESTAMP),
        optional("parent_process_id", pa.utf8()),
        optional("properties", DICT_JSONB),
        optional("last_update_time", TIMESTAMP),
        optional("last_block_end_ticks", pa.int64()),
        optional("last_block_end_time", TIMESTAMP),
    ]
)

PROCESSES = ViewSet(
    name="processes", schema=SCHEMA, min_column="insert_time", max_column="last_update_time", has_global=True
)
