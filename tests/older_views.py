"""A view set whose schema has changed, and partitions as the release before wrote them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from micromegas.lake import BlockRow, Lake, Partition
from micromegas.views.arrow_types import DICT_JSONB, required
from micromegas.views.block_decoding import DecodedBlocks
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.older_schema import OlderSchema
from micromegas.views.partition_writer import (
    FinishedFile,
    InsertRange,
    PartitionSlot,
    RowFile,
    commit_partition,
    source_hash,
)
from micromegas.views.view_set import ViewSet

OLDER_SCHEMA = pa.schema(
    [
        # Plain texts, another order, another name for the level, and the properties of the process not at all.
        required("msg", pa.utf8()),
        LOG_ENTRIES.schema.field("time"),
        required("severity", pa.utf8()),
        required("target", pa.utf8()),
        *(LOG_ENTRIES.schema.field(name) for name in ("process_id", "stream_id", "block_id", "insert_time")),
        *(required(name, pa.utf8()) for name in ("exe", "username", "computer")),
        required("properties", DICT_JSONB),
    ]
)
COMPUTED = {"level": "CAST(severity AS INT)", "process_properties": "properties"}

assert LOG_ENTRIES.decoded is not None
CHANGED = replace(LOG_ENTRIES, older=(OlderSchema(OLDER_SCHEMA, 0, COMPUTED),))
"""What log entries would be if the schema had changed to that of today."""

BEFORE: ViewSet = replace(
    LOG_ENTRIES, schema=OLDER_SCHEMA, decoded=replace(LOG_ENTRIES.decoded, decoder_version=0), older=()
)
"""What they were before."""


def write_as_before(
    lake: Lake,
    blocks: Sequence[BlockRow],
    instance_id: str = "global",
    *,
    view_set: ViewSet = BEFORE,
    failed: Sequence[BlockRow] = (),
) -> Partition:
    """A partition over the blocks, by the release before, whose decoder failed at those of `failed`."""
    read = [block for block in blocks if block not in failed]
    tables = [pa.Table.from_batches([batch]) for batch in DecodedBlocks(lake, LOG_ENTRIES, instance_id, read)]
    rows = pa.concat_tables(tables) if tables else LOG_ENTRIES.schema.empty_table()
    columns = [
        rows["level"].cast(pa.utf8()) if field.name == "severity" else rows[field.name].cast(field.type)
        for field in view_set.schema
    ]
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "rows.parquet"
        row_file = RowFile(local, view_set)
        row_file.write(pa.Table.from_arrays(columns, schema=view_set.schema))
        slot = PartitionSlot(
            view_set, instance_id, InsertRange(blocks[0].insert_time, blocks[-1].insert_time + 1), frozenset()
        )
        finished = FinishedFile(local, row_file.close(), source_hash(blocks), len(failed))
        if failed:
            lake.metadata.record_block_errors(view_set.name, [(block.block_id, "not yet", 0) for block in failed])
        return commit_partition(lake, slot, finished)
