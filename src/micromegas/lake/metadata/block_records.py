"""Blocks joined with their streams and processes as Arrow batches, the raw material of a table of blocks.

It must never load the whole answer at once, and never interpret properties: they leave as JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import pyarrow as pa
import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.blocks import BlockConditions, block_filter, block_order
from micromegas.lake.metadata.part import MetadataPart

TIMESTAMP = pa.timestamp("ns", "+00:00")
JSON_TEXTS = pa.dictionary(pa.int32(), pa.string())

BLOCK_RECORD_SCHEMA = pa.schema(
    [
        pa.field("block_id", pa.string(), nullable=False),
        pa.field("stream_id", pa.string(), nullable=False),
        pa.field("process_id", pa.string(), nullable=False),
        pa.field("begin_time", TIMESTAMP, nullable=False),
        pa.field("begin_ticks", pa.int64(), nullable=False),
        pa.field("end_time", TIMESTAMP, nullable=False),
        pa.field("end_ticks", pa.int64(), nullable=False),
        pa.field("nb_objects", pa.int32(), nullable=False),
        pa.field("object_offset", pa.int64(), nullable=False),
        pa.field("payload_size", pa.int64(), nullable=False),
        pa.field("insert_time", TIMESTAMP, nullable=False),
        pa.field("streams.dependencies_metadata", pa.binary(), nullable=False),
        pa.field("streams.objects_metadata", pa.binary(), nullable=False),
        pa.field("streams.tags", pa.list_(pa.field("tag", pa.string(), nullable=False))),
        pa.field("streams.properties", JSON_TEXTS, nullable=False),
        pa.field("streams.insert_time", TIMESTAMP, nullable=False),
        pa.field("streams.format", pa.string(), nullable=False),
        pa.field("processes.start_time", TIMESTAMP, nullable=False),
        pa.field("processes.start_ticks", pa.int64(), nullable=False),
        pa.field("processes.tsc_frequency", pa.int64(), nullable=False),
        pa.field("processes.exe", pa.string(), nullable=False),
        pa.field("processes.username", pa.string(), nullable=False),
        pa.field("processes.realname", pa.string(), nullable=False),
        pa.field("processes.computer", pa.string(), nullable=False),
        pa.field("processes.distro", pa.string(), nullable=False),
        pa.field("processes.cpu_brand", pa.string(), nullable=False),
        pa.field("processes.insert_time", TIMESTAMP, nullable=False),
        pa.field("processes.parent_process_id", pa.string(), nullable=False),
        pa.field("processes.properties", JSON_TEXTS, nullable=False),
    ]
)
"""The 29 columns of a block joined with its stream and process.

Properties are dictionaries of canonical JSON object texts; `processes.parent_process_id` is "" when there is none.
"""

JSON_COLUMNS = {"streams.properties", "processes.properties"}


def _selected_columns() -> list[sa.ColumnElement[Any]]:
    tables = {"": schema.blocks, "streams": schema.streams, "processes": schema.processes}
    columns: list[sa.ColumnElement[Any]] = []
    for name in BLOCK_RECORD_SCHEMA.names:
        table_name, _, column_name = name.rpartition(".")
        column = tables[table_name].c[column_name]
        # The text as stored spares parsing and printing it again for every row.
        selected = sa.cast(column, sa.Text) if name in JSON_COLUMNS or name == "streams.tags" else column
        columns.append(selected.label(name.replace(".", "_of_")))
    return columns


class BlockRecords(MetadataPart):
    """The reading half for joined blocks."""

    def block_record_batches(
        self, *, limit: int | None = None, batch_rows: int = 8192, **conditions: Unpack[BlockConditions]
    ) -> Iterator[pa.RecordBatch]:
        """Visible blocks as batches of `BLOCK_RECORD_SCHEMA`, ordered by (insert_time, block_id).

        Holds a read transaction until exhausted or closed.
        """
        blocks, streams, processes = schema.blocks, schema.streams, schema.processes
        statement = (
            sa.select(*_selected_columns())
            .select_from(
                blocks.join(streams, streams.c.stream_id == blocks.c.stream_id).join(
                    processes, processes.c.process_id == blocks.c.process_id
                )
            )
            .where(*block_filter(conditions))
            .order_by(*block_order("insert"))
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=batch_rows).execute(statement)
            for part in rows.partitions():
                yield _record_batch(part)


def _record_batch(rows: Sequence[sa.Row[*tuple[Any, ...]]]) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    # The same few texts stand in row after row: each distinct one is parsed once.
    tags: dict[str, list[str]] = {}
    for place, field in enumerate(BLOCK_RECORD_SCHEMA):
        column: list[Any] = [row[place] for row in rows]
        if field.name == "streams.tags":
            column = [tags[text] if text in tags else tags.setdefault(text, json.loads(text)) for text in column]
        elif field.name == "processes.parent_process_id":
            column = [value or "" for value in column]
        if field.name in JSON_COLUMNS:
            arrays.append(pa.array(column, pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=BLOCK_RECORD_SCHEMA)
