"""Table function `parse_block(block_id)`: every event of one block as JSONB, whatever its type.

Must never give fewer events than the block holds: what can't be read fails the query, by name of the block.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pyarrow as pa

from micromegas._engine import BlockEvents
from micromegas.lake import BlockRow, Lake
from micromegas.query.errors import QueryError
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import Parameter, TableFunction
from micromegas.query.tables import Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import required
from micromegas.wire import READABLE_FORMATS

SCHEMA = pa.schema(
    [required("object_index", pa.int64()), required("type_name", pa.utf8()), required("value", pa.binary())]
)
"""`object_index` counts from 0 within the block; `value` is a JSONB object with the type's name under `__type`."""

_BATCH_ROWS = 65536


class ParseBlock(TableFunction):
    """`parse_block`."""

    name = "parse_block"
    parameters = (Parameter("block_id"),)
    schemas = (SCHEMA,)
    description = (
        "Every event of one block, whatever its type: its place within the block, the name of its type and its members "
        "as a JSONB object, which has the type's name under `__type`. An event that can't be read fails the query; "
        "LIMIT gives those before it."
    )
    example = (
        "SELECT object_index, type_name, jsonb_as_string(jsonb_get(value, 'msg')) AS msg FROM parse_block('$block') "
        "LIMIT 3"
    )

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def table(self, block_id: str) -> QueryTable:
        try:
            return _ParsedBlock(self._lake, str(uuid.UUID(block_id)))
        except ValueError:
            raise QueryError("invalid", f"{block_id!r} is not the id of a block") from None


class _ParsedBlock(QueryTable):
    """The events of a block. A LIMIT directly on it ends the decoding early, also before an event that is broken."""

    def __init__(self, lake: Lake, block_id: str) -> None:
        self._block_id = block_id
        self.name = f"parse_block|{block_id}"
        self.schema = SCHEMA
        self.filter_columns = FilterColumns()
        self._lake = lake

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        block = self._block()
        if preparation.explain_only:
            return TableFiles()
        batches = self._batches(block, need.max_rows)
        return TableFiles(spooled=preparation.spool.write(SCHEMA, batches, "parse_block", preparation.max_list_bytes))

    def _block(self) -> BlockRow:
        metadata = self._lake.metadata
        if (block := metadata.block(self._block_id)) is not None:
            return block
        if (pending := metadata.pending_block(self._block_id)) is not None:
            raise QueryError("invalid", f"block {self._block_id} can't be read yet: {pending.error}")
        raise QueryError("invalid", f"unknown block {self._block_id}")

    def _batches(self, block: BlockRow, max_rows: int | None) -> Iterator[pa.RecordBatch]:
        where = f"block {block.block_id} of stream {block.stream_id}"
        stream = self._lake.metadata.streams([block.stream_id]).get(block.stream_id)
        if stream is None:
            raise QueryError("invalid", f"{where}: its stream is not in the lake any more")
        if stream.format not in READABLE_FORMATS:
            raise QueryError("unimplemented", f"{where}: format {stream.format!r} is not known")
        payload = self._lake.read_payload(block)
        try:
            events = BlockEvents(stream.dependencies_metadata, stream.objects_metadata, payload, stream.format)
        except ValueError as error:
            raise QueryError("invalid", f"{where}: {error}") from None
        while max_rows is None or events.count < max_rows:
            left = _BATCH_ROWS if max_rows is None else min(_BATCH_ROWS, max_rows - events.count)
            try:
                batch = pa.record_batch(events.read(left))
            except ValueError as error:
                readable = f"; LIMIT {events.count} gives the events before it" if events.count else ""
                raise QueryError("invalid", f"{where}: {error}{readable}") from None
            if batch.num_rows == 0:
                break
            yield batch
