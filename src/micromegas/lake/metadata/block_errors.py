"""Blocks that give no rows: undecodable ones, and those that still wait for their announcements.

It must never hide a block: whatever was acknowledged is visible, or listed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import BlockError, ClocklessBlock

# In place of the version of a decoder that failed: none began, as nothing told the frequency of the process.
CLOCK_UNKNOWN = -1
_IN_ERROR = sa.select(schema.block_errors.c.block_id).where(
    schema.block_errors.c.view_set == sa.bindparam("view_set"),
    schema.block_errors.c.block_id.in_(sa.bindparam("ids", expanding=True)),
)
_DECODER_FAILED = _IN_ERROR.where(schema.block_errors.c.decoder_version != CLOCK_UNKNOWN)

_WITH_CLOCK_NOW = (
    sa.select(
        schema.block_errors.c.view_set,
        schema.block_errors.c.block_id,
        schema.blocks.c.process_id,
        schema.blocks.c.stream_id,
        schema.blocks.c.insert_time,
    )
    .join(schema.blocks, schema.blocks.c.block_id == schema.block_errors.c.block_id)
    .join(schema.processes, schema.processes.c.process_id == schema.blocks.c.process_id)
    .where(
        schema.block_errors.c.decoder_version == CLOCK_UNKNOWN,
        schema.block_errors.c.recorded < sa.bindparam("recorded_before"),
        schema.blocks.c.insert_time.is_not(None),
        sa.or_(schema.processes.c.tsc_frequency > 0, schema.processes.c.clock.is_not(None)),
    )
    .order_by(schema.block_errors.c.recorded, schema.block_errors.c.block_id, schema.block_errors.c.view_set)
)


class BlockErrors(MetadataPart):
    """The list of blocks without rows."""

    def record_block_errors(self, view_set: str, errors: Iterable[tuple[str, str, int]]) -> None:
        """Keep why blocks gave no (or not all) rows for a view set: (block_id, error, version of the decoder or
        `CLOCK_UNKNOWN`) each; replaces older entries."""
        table = schema.block_errors
        now = self._clock()
        # One entry per block, in id order, so that two writers never wait for each other crosswise.
        by_block = {block_id: (error, version) for block_id, error, version in sorted(errors)}
        with self._database.write() as connection:
            for chunk in chunks(by_block.items()):
                rows = [
                    {
                        "view_set": view_set,
                        "block_id": block_id,
                        "error": error.replace("\0", ""),
                        "decoder_version": version,
                        "recorded": now,
                    }
                    for block_id, (error, version) in chunk
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

    def blocks_in_error(self, view_set: str, block_ids: Iterable[str], *, with_clock: bool = False) -> set[str]:
        """Those of the blocks that lack rows in the view set; `with_clock`: only those that a decoder failed at."""
        statement = _DECODER_FAILED if with_clock else _IN_ERROR
        found: set[str] = set()
        with self._database.read() as connection:
            for chunk in chunks(block_ids):
                found.update(connection.execute(statement, {"view_set": view_set, "ids": chunk}).scalars())
        return found

    def clockless_blocks(self, recorded_before: int, limit: int) -> list[ClocklessBlock]:
        """Up to `limit` blocks that failed before (ns), when nothing told the frequency of their process, which
        something tells by now; those that failed first come first."""
        with self._database.read() as connection:
            rows = connection.execute(_WITH_CLOCK_NOW.limit(limit), {"recorded_before": recorded_before})
            return [ClocklessBlock(*row) for row in rows]

    def forget_clockless(self, block: ClocklessBlock) -> None:
        """Nothing lacks the rows of this block any more; an error of a decoder that had it since stays."""
        table = schema.block_errors
        with self._database.write() as connection:
            connection.execute(
                sa.delete(table).where(
                    table.c.view_set == block.view_set,
                    table.c.block_id == block.block_id,
                    table.c.decoder_version == CLOCK_UNKNOWN,
                )
            )

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
