"""View set `blocks`: one row per block joined with its stream and its process. Read from the metadata database.

Column names hold dots; SQL has to put them in double quotes.
"""

from __future__ import annotations

import pyarrow as pa

from micromegas.views.arrow_types import DICT_JSONB, TAGS, TIMESTAMP, optional, required
from micromegas.views.view_set import ViewSet

SCHEMA = pa.schema(
    [
        required("block_id", pa.utf8()),
        required("stream_id", pa.utf8()),
        required("process_id", pa.utf8()),
        required("begin_time", TIMESTAMP),
        required("begin_ticks", pa.int64()),
        required("end_time", TIMESTAMP),
        required("end_ticks", pa.int64()),
        required("nb_objects", pa.int32()),
        required("object_offset", pa.int64()),
        required("payload_size", pa.int64()),
        required("insert_time", TIMESTAMP),
        required("streams.dependencies_metadata", pa.binary()),
        required("streams.objects_metadata", pa.binary()),
        optional("streams.tags", TAGS),
        required("streams.properties", DICT_JSONB),
        required("streams.insert_time", TIMESTAMP),
        required("streams.format", pa.utf8()),
        required("processes.start_time", TIMESTAMP),
        required("processes.start_ticks", pa.int64()),
        required("processes.tsc_frequency", pa.int64()),
        required("processes.exe", pa.utf8()),
        required("processes.username", pa.utf8()),
        required("processes.realname", pa.utf8()),
        required("processes.computer", pa.utf8()),
        required("processes.distro", pa.utf8()),
        required("processes.cpu_brand", pa.utf8()),
        required("processes.insert_time", TIMESTAMP),
        required("processes.parent_process_id", pa.utf8()),
        required("processes.properties", DICT_JSONB),
    ]
)

BLOCKS = ViewSet(name="blocks", schema=SCHEMA, min_column="begin_time", max_column="insert_time", has_global=True)
