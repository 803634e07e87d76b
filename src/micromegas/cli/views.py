"""`micromegas views` and `micromegas partitions`: what can be asked, and what is kept of it."""

from __future__ import annotations

import re
import time

import pyarrow as pa

from micromegas.cli.connection import connected
from micromegas.cli.errors import CliError
from micromegas.cli.literals import all_of, time_literal
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.questions import PartitionsFlags
from micromegas.cli.rows import chosen_format, write_table
from micromegas.cli.times import parse_time
from micromegas.client.sql_literal import text_literal

# how a column is stored, not what it is
_DICTIONARY = re.compile(r"dictionary\(int32,(\w+)\)")
_VIEWS = """
    SELECT view_set_name, global_instance_available AS is_table, has_view_maker AS has_instances, schema
    FROM list_view_sets() ORDER BY view_set_name
"""
_SUMMARY = """
    SELECT view_set_name, CASE view_instance_id WHEN 'global' THEN 'global' ELSE 'instances' END AS kind,
        count(*) AS partitions, sum(num_rows) AS rows, sum(file_size) AS bytes,
        min(min_event_time) AS first_event, max(max_event_time) AS last_event, max(updated) AS updated
    FROM list_partitions() WHERE {condition} GROUP BY 1, 2 ORDER BY 1, 2
"""
_PARTITIONS = """
    SELECT view_instance_id, begin_insert_time, end_insert_time, min_event_time AS first_event,
        max_event_time AS last_event, num_rows AS rows, file_size AS bytes, updated, file_path
    FROM list_partitions() WHERE {condition} ORDER BY begin_insert_time, view_instance_id
"""


def run_views(connection: Connection, name: str | None, rows: RowFlags) -> None:
    """A row per view set, or with `name` a row per column of it; raises `CliError` for whatever goes wrong."""
    chosen = chosen_format(rows)
    with connected(connection) as client:
        views = client.query(_VIEWS)
    if name is None:
        columns = [len(schema.splitlines()) for schema in views["schema"].to_pylist()]
        table = views.drop_columns(["schema"]).append_column("columns", pa.array(columns, pa.int64()))
    else:
        schemas = dict(zip(views["view_set_name"].to_pylist(), views["schema"].to_pylist(), strict=True))
        if name not in schemas:
            raise CliError(f"unknown view {name}: list them with  micromegas views")
        fields = [line.split(":", 1) for line in schemas[name].splitlines()]
        table = pa.table(
            {
                "column": [field for field, _ in fields],
                "type": [_DICTIONARY.sub(r"\1", kind.removesuffix("?")) for _, kind in fields],
                "nullable": [kind.endswith("?") for _, kind in fields],
            }
        )
    write_table(table, chosen)


def run_partitions(connection: Connection, flags: PartitionsFlags, rows: RowFlags) -> None:
    """Sums per view set, or of one its partitions; raises `CliError` for whatever goes wrong."""
    format_name = chosen_format(rows)
    view_set, instance, begin, end = flags.view_set, flags.instance, flags.begin, flags.end
    now = time.time_ns()
    condition = all_of(
        (
            None if view_set is None else f"view_set_name = {text_literal(view_set)}",
            None if instance is None else f"view_instance_id = {text_literal(instance)}",
            None if begin is None else f"end_insert_time > {time_literal(parse_time('--begin', begin, now))}",
            None if end is None else f"begin_insert_time < {time_literal(parse_time('--end', end, now))}",
        )
    )
    with connected(connection) as client:
        table = client.query((_SUMMARY if view_set is None else _PARTITIONS).format(condition=condition))
    write_table(table, format_name, time_digits=0)
