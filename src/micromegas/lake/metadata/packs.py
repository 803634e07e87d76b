"""Where payloads lie: packs that are mostly dead, and moving their blocks.

It must never point a row at an object that isn't durable, nor give up one that a row points to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks


@dataclass(frozen=True, slots=True)
class PayloadPlace:
    """Where the payload of a block lies, of one that is pending, too."""

    block_id: str
    object_key: str
    payload_offset: int
    payload_size: int


class PackPlaces(MetadataPart):
    """Packs that lost most of their blocks, and the move of what is left."""

    def mostly_dead_packs(self, limit: int) -> list[str]:
        """Up to `limit` packs of which more bytes are dead than alive, oldest first."""
        columns = schema.thinned_packs.c
        statement = (
            sa.select(columns.object_key)
            .where(columns.live_bytes < columns.lost_bytes)
            .order_by(columns.object_key)
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement).scalars())

    def payload_places(self, object_key: str) -> list[PayloadPlace]:
        """All payloads in an object, in their order."""
        columns = schema.blocks.c
        statement = (
            sa.select(columns.block_id, columns.object_key, columns.payload_offset, columns.payload_size)
            .where(columns.object_key == object_key)
            .order_by(columns.payload_offset, columns.block_id)
        )
        with self._database.read() as connection:
            return [PayloadPlace(*row) for row in connection.execute(statement)]

    def move_payloads(
        self,
        moves: Sequence[tuple[PayloadPlace, int]],
        new_key: str,
        expires: int,
        before_commit: Callable[[], None],
    ) -> bool:
        """Point the rows of blocks at their new offsets in another object, in one transaction, and let the objects that
        nobody points to any more expire; `before_commit` may veto it by raising.

        A block that was deleted meanwhile stays deleted. False when no block was left to be moved.
        """
        blocks = schema.blocks
        statement = (
            sa.update(blocks)
            .where(blocks.c.block_id == sa.bindparam("id"), blocks.c.object_key == sa.bindparam("old_key"))
            .values(object_key=new_key, payload_offset=sa.bindparam("new_offset"))
        )
        old_keys = sorted({place.object_key for place, _ in moves})
        with self._database.write() as connection:
            # The turn keeps out whoever deletes blocks.
            self._advance_commit_clock(connection)
            connection.execute(
                statement,
                [{"id": place.block_id, "old_key": place.object_key, "new_offset": offset} for place, offset in moves],
            )
            self._note_packs(connection, old_keys, {}, expires)
            moved = connection.execute(
                sa.select(sa.func.count()).select_from(blocks).where(blocks.c.object_key == new_key)
            ).scalar_one()
            before_commit()
        return bool(moved)

    def forget_thinned_pack(self, object_key: str) -> None:
        """Look at a pack no more, until it loses another block."""
        with self._database.write() as connection:
            self._forget_thinned(connection, [object_key])

    def _note_packs(self, connection: sa.Connection, keys: Sequence[str], lost: dict[str, int], expires: int) -> None:
        """After rows of these objects were deleted (`lost` bytes) or moved: what nobody points to any more expires, of
        the others it is noted how much of them is left."""
        blocks, thinned = schema.blocks.c, schema.thinned_packs
        for chunk in chunks(keys):
            sums = (
                sa.select(blocks.object_key, sa.func.sum(blocks.payload_size))
                .where(blocks.object_key.in_(chunk))
                .group_by(blocks.object_key)
            )
            left = {key: int(size) for key, size in connection.execute(sums)}
            gone = [key for key in chunk if key not in left]
            if gone:
                self._forget_thinned(connection, gone)
                rows = [{"path": key, "expires": expires, "doomed": False} for key in gone]
                connection.execute(self._insert(schema.expiring_objects).on_conflict_do_nothing(), rows)
            noted = [
                {"object_key": key, "live_bytes": size, "lost_bytes": lost[key]}
                for key, size in left.items()
                if key in lost
            ]
            if noted:
                insert = self._insert(thinned)
                update = {
                    "live_bytes": insert.excluded.live_bytes,
                    "lost_bytes": thinned.c.lost_bytes + insert.excluded.lost_bytes,
                }
                connection.execute(insert.on_conflict_do_update(index_elements=["object_key"], set_=update), noted)

    def _forget_thinned(self, connection: sa.Connection, keys: Sequence[str]) -> None:
        connection.execute(sa.delete(schema.thinned_packs).where(schema.thinned_packs.c.object_key.in_(keys)))
