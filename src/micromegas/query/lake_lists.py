"""Table functions without arguments that list what the lake holds: partitions, view sets, blocks without rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from micromegas.lake import Lake
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import TableFunction
from micromegas.query.tables import Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import TAGS, TIMESTAMP, canonical_schema, optional, required
from micromegas.views.view_set import ViewSet

PARTITIONS_SCHEMA = pa.schema(
    [
        required("view_set_name", pa.utf8()),
        required("view_instance_id", pa.utf8()),
        required("begin_insert_time", TIMESTAMP),
        required("end_insert_time", TIMESTAMP),
        optional("min_event_time", TIMESTAMP),
        optional("max_event_time", TIMESTAMP),
        required("updated", TIMESTAMP),
        optional("file_path", pa.utf8()),
        required("file_size", pa.int64()),
        required("file_schema_hash", pa.binary()),
        required("source_data_hash", pa.binary()),
        required("num_rows", pa.int64()),
        required("partition_format_version", pa.int32()),
        optional("sort_order", TAGS),
        optional("max_sort_key_time", TIMESTAMP),
    ]
)
"""`sort_order` and `max_sort_key_time` are NULL: no order is certified."""

VIEW_SETS_SCHEMA = pa.schema(
    [
        required("view_set_name", pa.utf8()),
        required("current_schema_hash", pa.binary()),
        required("schema", pa.utf8()),
        required("has_view_maker", pa.bool_()),
        required("global_instance_available", pa.bool_()),
    ]
)

BLOCK_ERRORS_SCHEMA = pa.schema(
    [
        required("block_id", pa.utf8()),
        optional("view_set_name", pa.utf8()),
        required("error", pa.utf8()),
        optional("decoder_version", pa.int32()),
        optional("recorded", TIMESTAMP),
    ]
)
"""Blocks that gave no or not all rows; `view_set_name` is NULL for those that wait for their announcements."""

# Parquet files with page index, without a certified order.
_PARTITION_FORMAT_VERSION = 2
_MAX_BATCH_ROWS = 65536


class LakeListFunction(TableFunction):
    """A table function without arguments."""

    def __init__(
        self, name: str, schema: pa.Schema, rows: Callable[[], list[tuple[object, ...]]], description: str, example: str
    ) -> None:
        self.name = name
        self.schemas = (schema,)
        self.description = description
        self.example = example
        self._table = _LakeList(name, schema, rows)

    def table(self) -> QueryTable:
        return self._table


class _LakeList(QueryTable):
    """Its answer, listed anew for each statement."""

    def __init__(self, function: str, schema: pa.Schema, rows: Callable[[], list[tuple[object, ...]]]) -> None:
        self.name = f"{function}|"
        self.schema = schema
        self.filter_columns = FilterColumns()
        self._function = function
        self._rows = rows

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        if preparation.explain_only:
            return TableFiles()
        urls = preparation.spool.write(self.schema, self._batches(), self._function, preparation.max_list_bytes)
        return TableFiles(spooled=urls)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        rows = self._rows()
        for start in range(0, len(rows), _MAX_BATCH_ROWS):
            columns = zip(*rows[start : start + _MAX_BATCH_ROWS], strict=True)
            yield pa.RecordBatch.from_arrays(
                [pa.array(column, field.type) for field, column in zip(self.schema, columns, strict=True)],
                schema=self.schema,
            )


def lake_lists(lake: Lake, view_sets: Sequence[ViewSet]) -> list[LakeListFunction]:
    """`list_partitions()`, `list_view_sets()` and `list_block_errors()`."""
    return [
        LakeListFunction(
            "list_partitions",
            PARTITIONS_SCHEMA,
            lambda: _partitions(lake),
            "The partitions of all views: which range of insert times each covers, its file (NULL without rows) "
            "and the hashes of its schema and of the blocks that it was made of.",
            "SELECT view_set_name, view_instance_id, count(*) AS partitions, sum(num_rows) AS rows "
            "FROM list_partitions() WHERE view_instance_id = 'global' GROUP BY 1, 2",
        ),
        LakeListFunction(
            "list_view_sets",
            VIEW_SETS_SCHEMA,
            lambda: _view_sets(view_sets),
            "The view sets with their schemas. `has_view_maker`: there are instances, for `view_instance`; "
            "`global_instance_available`: the name of the set stands in FROM.",
            "SELECT view_set_name, has_view_maker, global_instance_available FROM list_view_sets() "
            "WHERE view_set_name IN ('log_entries', 'thread_spans') ORDER BY 1",
        ),
        LakeListFunction(
            "list_block_errors",
            BLOCK_ERRORS_SCHEMA,
            lambda: _block_errors(lake),
            "The blocks that gave no rows or not all of them, and why. Without a view set: blocks that wait for the "
            "announcement of their process or stream. With the decoder's version -1: blocks of a process whose "
            "counter's frequency nothing tells yet; their rows are made soon after something does.",
            "SELECT count(*) AS errors FROM list_block_errors()",
        ),
    ]


def _partitions(lake: Lake) -> list[tuple[object, ...]]:
    return [
        (
            each.view_set,
            each.instance_id,
            each.begin_insert_time,
            each.end_insert_time,
            each.min_event_time,
            each.max_event_time,
            each.updated,
            each.file_path,
            each.file_size,
            each.schema_hash,
            each.source_hash,
            each.num_rows,
            _PARTITION_FORMAT_VERSION,
            None,
            None,
        )
        for each in lake.metadata.all_partitions()
    ]


def _view_sets(view_sets: Sequence[ViewSet]) -> list[tuple[object, ...]]:
    return [
        (
            each.name,
            each.schema_hash,
            canonical_schema(each.schema),
            each.instance_kind is not None,
            each.has_global,
        )
        for each in view_sets
    ]


def _block_errors(lake: Lake) -> list[tuple[object, ...]]:
    return [
        (each.block_id, each.view_set, each.error, each.decoder_version, each.recorded)
        for each in lake.metadata.block_errors()
    ]
