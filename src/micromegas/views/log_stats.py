"""View set `log_stats`: how many log events of a level and a target a process had in each minute. Reduced from
`log_entries` by `log_stats.sql`."""

from __future__ import annotations

from importlib import resources

import pyarrow as pa

from micromegas.views.arrow_types import DICT_STRING, TIMESTAMP, optional
from micromegas.views.sql_definition import read_definitions
from micromegas.views.view_set import ReducedBy, ViewSet

SCHEMA = pa.schema(
    [
        optional("time_bin", TIMESTAMP),
        optional("process_id", DICT_STRING),
        optional("level", pa.int32()),
        optional("target", DICT_STRING),
        optional("count", pa.int64()),
    ]
)

_TEXT = resources.files("micromegas.views").joinpath("log_stats.sql").read_text(encoding="utf-8")
_DEFINITION = read_definitions(_TEXT, "log_stats.sql")[0][0]

LOG_STATS = ViewSet(
    name=_DEFINITION.name,
    schema=SCHEMA,
    min_column=_DEFINITION.min_column,
    max_column=_DEFINITION.max_column,
    has_global=True,
    reduced=ReducedBy(_DEFINITION),
)
