"""Partitions that another version wrote: found, and retired so that they are made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.sql_literal import text_literal

if TYPE_CHECKING:
    import pandas as pd

_INCOMPATIBLE = """
SELECT p.view_set_name, p.view_instance_id, p.begin_insert_time, p.end_insert_time,
       p.file_schema_hash AS incompatible_schema_hash, v.current_schema_hash, p.file_path, p.file_size
FROM list_partitions() p JOIN list_view_sets() v ON p.view_set_name = v.view_set_name
WHERE p.file_schema_hash <> v.current_schema_hash{condition}
ORDER BY p.view_set_name, p.view_instance_id, p.begin_insert_time"""
_RETIRE = """
SELECT view_set_name, view_instance_id, file_size,
       retire_partition_by_metadata(
           view_set_name, view_instance_id, begin_insert_time, end_insert_time, incompatible_schema_hash
       ) AS message
FROM ({partitions})"""
_COUNTED = [
    "view_set_name",
    "view_instance_id",
    "partitions_retired",
    "partitions_failed",
    "storage_freed_bytes",
    "retirement_messages",
]


def list_incompatible_partitions(client: FlightSQLClient, view_set_name: str | None = None) -> pd.DataFrame:
    """A row per partition whose schema isn't the one that its view set has now; `file_path` is null for one without
    rows."""
    return client.query(_incompatible(view_set_name))


def retire_incompatible_partitions(client: FlightSQLClient, view_set_name: str | None = None) -> pd.DataFrame:
    """Retires them; a row per view instance with how many were, how many could not be, the bytes freed and what the
    server said of each. A failure is told there, and not raised."""
    import pandas as pd

    retired = client.query(_RETIRE.format(partitions=_incompatible(view_set_name)))
    rows = []
    for (view_set, instance), each in retired.groupby(["view_set_name", "view_instance_id"], sort=True):
        succeeded = each["message"].str.startswith("SUCCESS:")
        freed = int(each["file_size"][succeeded].fillna(0).sum())
        rows.append((view_set, instance, int(succeeded.sum()), int((~succeeded).sum()), freed, list(each["message"])))
    return pd.DataFrame(rows, columns=_COUNTED)


def _incompatible(view_set_name: str | None) -> str:
    condition = "" if view_set_name is None else f" AND p.view_set_name = {text_literal(view_set_name)}"
    return _INCOMPATIBLE.format(condition=condition)
