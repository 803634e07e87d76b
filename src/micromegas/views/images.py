"""View set `images`: one row per screenshot or other picture that a process sent, with its bytes."""

from __future__ import annotations

import pyarrow as pa

from micromegas._engine import ImagesBuilder
from micromegas.views.arrow_types import DICT_STRING, LEADING_COLUMNS, TIMESTAMP, required
from micromegas.views.block_rows import BlockRows, EventRows, RowsRequest
from micromegas.views.view_set import DecodedFrom, InstanceKind, ViewSet

SCHEMA = pa.schema(
    [
        *LEADING_COLUMNS,
        required("time", TIMESTAMP),
        required("name", pa.utf8()),
        required("format", DICT_STRING),
        required("payload_size", pa.int64()),
        required("data", pa.binary()),
    ]
)
"""`payload_size` is the length of `data` in bytes; `format` is what the sender says, mostly a MIME type."""


def _new_rows(_request: RowsRequest) -> BlockRows:
    return EventRows(ImagesBuilder())


IMAGES = ViewSet(
    name="images",
    schema=SCHEMA,
    min_column="time",
    max_column="time",
    has_global=False,
    instance_kind=InstanceKind.PROCESS,
    decoded=DecodedFrom(stream_tag="image", decoder_version=1, new_rows=_new_rows),
)
