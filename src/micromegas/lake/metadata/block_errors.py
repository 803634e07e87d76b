"""Blocks that give no rows: undecodable ones, and those that still wait for their announcements.

It must never hide a block: whatever was acknowledged is visible, or listed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import BlockError

_IN_ERROR = sa.select(schema.block_errors.c.block_id).where(
    schema.block_errors.c.view_set == sa.bindparam("view_set"),
    schema.block_errors.c.block_id.in_(sa.bindparam("ids", expanding=True)),
)


class BlockErrors(MetadataPart):
    """The list of blocks without rows."""

    def record_block_errors(self, view_set: str, errors: Iterable[tuple[str, str]], decoder_version: int) -> None:
        """Keep why blocks gave no (or not all) rows for a view set: (block_id, error) each; replaces older entries."""
        table = schema.block_errors
        now = self._clock()
        # One entry per block, in id order, so that two writers never wait for each other crosswise.
        texts = dict(sorted(errors))
        with self._database.write() as connection:
            for chunk in chunks(texts.items()):
                rows = [
                    {
                        "view_set": view_set,
                        "block_id": block_id,
                        "error": error.replace("\0", ""),
                        "decoder_version": decoder_version,
                        "recorded": now,
                    }
                    for block_id, error in chunk
                ]
                statement = self._insert(table)
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[table.c.view_set, table.c.block_id],
                        set_={name: statement.excluded[name] for name in ("error", "decoder_version", "recorded")},
                    ),
                    rows,
                )

    def clear_block_errors(self, view_set: str, block_ids: Iterable[str]) -> None:
        """Forget the errors of blocks that were decoded after all."""
        table = schema.block_errors
        with self._database.write() as connection:
            for chunk in chunks(block_ids):
                connection.execute(sa.delete(table).where(table.c.view_set == view_set, table.c.block_id.in_(chunk)))

    def blocks_in_error(self, view_set: str, block_ids: Iterable[str]) -> set[str]:
        """Those of the blocks that have an error for the view set."""
        found: set[str] = set()
        with self._database.read() as connection:
            for chunk in chunks(block_ids):
                found.update(connection.execute(_IN_ERROR, {"view_set": view_set, "ids": chunk}).scalars())
        return found

    def block_errors(self) -> list[BlockError]:
        """Undecodable blocks by view set and id, then the pending ones (view set None) by arrival."""
        table, blocks = schema.block_errors, schema.blocks
        undecodable = sa.select(
            table.c.block_id, table.c.view_set, table.c.error, table.c.decoder_version, table.c.recorded
        ).order_by(table.c.view_set, table.c.block_id)
        pending = _pending_blocks().order_by(blocks.c.received, blocks.c.block_id)
        with self._database.read() as connection:
            found = [BlockError(*row) for row in connection.execute(undecodable)]
            found.extend(_waiting(row) for row in connection.execute(pending))
        return found

    def pending_block(self, block_id: str) -> BlockError | None:
        """What the block of this id waits for; None when it is visible or unknown."""
        with self._database.read() as connection:
            row = connection.execute(_pending_blocks().where(schema.blocks.c.block_id == block_id)).first()
        return None if row is None else _waiting(row)


def _pending_blocks() -> sa.Select[*tuple[Any, ...]]:
    blocks = schema.blocks
    return sa.select(
        blocks.c.block_id,
        blocks.c.stream_id,
        blocks.c.process_id,
        blocks.c.received,
        sa.exists().where(schema.streams.c.stream_id == blocks.c.stream_id).label("stream_known"),
    ).where(blocks.c.insert_time.is_(None))


def _waiting(row: sa.Row[Any]) -> BlockError:
    missing = f"process {row.process_id}" if row.stream_known else f"stream {row.stream_id}"
    return BlockError(row.block_id, None, f"{missing} was not announced yet", None, row.received)
