"""Blocks that are copied from another lake, as long as only their row or only their payload is here.

It must never make a block visible: that is a commit's business, once both are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from micromegas.lake.errors import LakeUnavailable
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import BlockHeader, BlockIds

_REPLICAS = schema.replicas
_HEADER_COLUMNS = [_REPLICAS.c[name] for name in BlockHeader.__dataclass_fields__]
_FACTS = [name for name in BlockHeader.__dataclass_fields__ if name not in BlockIds.__dataclass_fields__]


class Replicas(MetadataPart):
    """Rows and payloads that wait for each other. Whoever notes the second half learns of the first, whoever else is
    at it."""

    def note_replica_headers(self, headers: Sequence[BlockHeader]) -> list[BlockHeader]:
        """Keep these rows; returns those whose payload is here."""
        rows = {
            each.block_id: {name: getattr(each, name) for name in BlockHeader.__dataclass_fields__} for each in headers
        }
        return self._note(rows, {"has_payload": False}, _FACTS, _REPLICAS.c.has_payload)

    def expect_replica_payloads(self, blocks: Sequence[BlockIds], expires: int) -> None:
        """Register the objects of these payloads *before* they are written, so that a killed writer leaks nothing.

        They are deleted after `expires` (ns) unless `note_replica_payloads` tells of them before. Raises
        `LakeUnavailable` while one is being deleted.
        """
        column = schema.expiring_objects.c
        with self._database.write() as connection:
            for chunk in chunks({each.block_id: each.lone_object_key for each in blocks}.items()):
                paths = dict(chunk)
                # What is noted already may be written again, but must not go when this writer is killed.
                noted = sa.select(_REPLICAS.c.block_id).where(_REPLICAS.c.block_id.in_(paths), _REPLICAS.c.has_payload)
                for block_id in connection.execute(noted).scalars():
                    del paths[block_id]
                rows = [{"path": path, "expires": expires, "doomed": False} for path in sorted(paths.values())]
                if not rows:
                    continue
                insert = self._insert(schema.expiring_objects)
                connection.execute(
                    insert.on_conflict_do_update(index_elements=["path"], set_={"expires": expires}), rows
                )
                doomed = sa.select(column.path).where(column.path.in_(paths.values()), column.doomed)
                if connection.execute(doomed.limit(1)).first() is not None:
                    raise LakeUnavailable("what is left of an earlier copy is being deleted")

    def note_replica_payloads(self, blocks: Sequence[BlockIds]) -> list[BlockHeader]:
        """Remember that the payloads of these blocks lie in objects of their own; returns the rows that are here."""
        rows: dict[str, dict[str, Any]] = {
            each.block_id: {name: getattr(each, name) for name in BlockIds.__dataclass_fields__} for each in blocks
        }
        keys = [each.lone_object_key for each in blocks]
        return self._note(rows, {"has_payload": True}, ["has_payload"], _REPLICAS.c.payload_size.is_not(None), keys)

    def replica_headers(self, block_ids: Sequence[str]) -> list[BlockHeader]:
        """Those of the blocks whose rows wait for their payloads."""
        found: list[BlockHeader] = []
        with self._database.read() as connection:
            for chunk in chunks(block_ids):
                statement = sa.select(*_HEADER_COLUMNS).where(
                    _REPLICAS.c.block_id.in_(chunk), _REPLICAS.c.payload_size.is_not(None), ~_REPLICAS.c.has_payload
                )
                found += (BlockHeader(*row) for row in connection.execute(statement))
        return found

    def replicas_before(self, received: int, limit: int) -> list[tuple[BlockIds, bool]]:
        """Up to `limit` halves that wait since before (ns) for the other one, and whether they are payloads."""
        columns = _REPLICAS.c
        statement = (
            sa.select(columns.block_id, columns.stream_id, columns.process_id, columns.has_payload)
            .where(columns.received < received)
            .order_by(columns.received)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [(BlockIds(*row[:3]), bool(row[3])) for row in connection.execute(statement)]

    def forget_replicas(self, block_ids: Sequence[str]) -> None:
        """Drop what was noted about these blocks; their objects are the caller's business."""
        with self._database.write() as connection:
            for chunk in chunks(block_ids):
                connection.execute(sa.delete(_REPLICAS).where(_REPLICAS.c.block_id.in_(chunk)))

    def _note(
        self,
        rows: Mapping[str, dict[str, Any]],
        common: Mapping[str, Any],
        updated: Sequence[str],
        is_whole: sa.ColumnElement[bool],
        kept_objects: Sequence[str] = (),
    ) -> list[BlockHeader]:
        """Insert or complete rows; those of `is_whole` then. The database lets one of two writers see the other's.
        `kept_objects` don't expire any more."""
        received = self._clock()
        # in one order everywhere, so that two writers of the same rows don't wait for each other
        values = [{**rows[key], **common, "received": received} for key in sorted(rows)]
        whole: list[BlockHeader] = []
        with self._database.write() as connection:
            for chunk in chunks(values):
                insert = self._insert(_REPLICAS)
                update = {name: insert.excluded[name] for name in updated}
                connection.execute(insert.on_conflict_do_update(index_elements=["block_id"], set_=update), list(chunk))
                ids = [row["block_id"] for row in chunk]
                # A block that is whole already, perhaps since a moment ago, waits for nothing.
                stored = sa.exists().where(schema.blocks.c.block_id == _REPLICAS.c.block_id)
                connection.execute(sa.delete(_REPLICAS).where(_REPLICAS.c.block_id.in_(ids), stored))
                statement = sa.select(*_HEADER_COLUMNS).where(
                    _REPLICAS.c.block_id.in_(ids), _REPLICAS.c.has_payload, is_whole
                )
                whole += (BlockHeader(*row) for row in connection.execute(statement))
            for paths in chunks(kept_objects):
                path = schema.expiring_objects.c.path
                connection.execute(sa.delete(schema.expiring_objects).where(path.in_(paths)))
        return whole
