"""Forgetting what is older than the horizon, in small steps.

It must never give up an object that a remaining row points to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.packs import PackPlaces
from micromegas.lake.metadata.part import chunks
from micromegas.lake.rows import BlockIds


class Retention(PackPlaces):
    """Deleting old blocks, streams and processes, and the marks of the search for objects without rows."""

    def delete_blocks_before(self, received: int, limit: int, expires: int) -> int:
        """Delete up to `limit` blocks that were received before (ns), oldest first, pending ones too; returns how many.

        Objects that no row points to any more are registered to be deleted after `expires` (ns).
        """
        blocks = schema.blocks
        with self._database.write() as connection:
            # The turn keeps out commits that could refer to a stream that goes when its last block has gone.
            self._advance_commit_clock(connection)
            # The visible ones by the index of insert time; the pending ones are few.
            oldest = (
                connection.execute(
                    sa.select(blocks.c.block_id)
                    .where(blocks.c.insert_time < received)
                    .order_by(blocks.c.insert_time)
                    .limit(limit)
                )
                .scalars()
                .all()
            )
            pending = (
                connection.execute(
                    sa.select(blocks.c.block_id)
                    .where(blocks.c.insert_time.is_(None), blocks.c.received < received)
                    .limit(limit - len(oldest))
                )
                .scalars()
                .all()
            )
            self._delete_blocks(connection, [*oldest, *pending], expires)
        return len(oldest) + len(pending)

    def expired_blocks_of(self, stream_ids: Sequence[str], insert_time: int) -> tuple[int, int]:
        """How many visible blocks of these streams have an insert time before this one (ns), and the bytes of their
        payloads."""
        columns = schema.blocks.c
        count = size = 0
        with self._database.read() as connection:
            for chunk in chunks(stream_ids):
                statement = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(columns.payload_size), 0)).where(
                    columns.stream_id.in_(chunk), columns.insert_time < insert_time
                )
                found = connection.execute(statement).one()
                count, size = count + int(found[0]), size + int(found[1])
        return count, size

    def delete_blocks_of(self, stream_ids: Sequence[str], insert_time: int, limit: int, expires: int) -> int:
        """Delete up to `limit` visible blocks of these streams with an insert time before this one (ns); returns how
        many. Objects as in `delete_blocks_before`; their streams and processes stay."""
        columns = schema.blocks.c
        old: list[str] = []
        with self._database.read() as connection:
            for chunk in chunks(stream_ids):
                statement = (
                    sa.select(columns.block_id)
                    .where(columns.stream_id.in_(chunk), columns.insert_time < insert_time)
                    .limit(limit - len(old))
                )
                old += connection.execute(statement).scalars()
                if len(old) >= limit:
                    break
        if not old:
            return 0
        with self._database.write() as connection:
            self._advance_commit_clock(connection)
            self._delete_blocks(connection, old, expires)
        return len(old)

    def _delete_blocks(self, connection: sa.Connection, block_ids: Sequence[str], expires: int) -> None:
        """Delete blocks with what was noted about them; objects that no row points to any more expire."""
        blocks = schema.blocks.c
        lost: dict[str, int] = defaultdict(int)
        for chunk in chunks(block_ids):
            deleted = connection.execute(
                sa.delete(schema.blocks)
                .where(blocks.block_id.in_(chunk))
                .returning(blocks.object_key, blocks.process_id, blocks.stream_id, blocks.block_id, blocks.payload_size)
            )
            for row in deleted:
                lost[row[0] or BlockIds(row[3], row[2], row[1]).lone_object_key] += int(row[4])
            connection.execute(sa.delete(schema.block_errors).where(schema.block_errors.c.block_id.in_(chunk)))
        self._note_packs(connection, sorted(lost), lost, expires)

    def delete_idle_announcements(self, last_update: int, limit: int) -> int:
        """Delete up to `limit` streams, then processes, that were last updated before (ns) and own nothing any more:
        neither blocks nor the partitions of an instance.

        A stream stays as long as its process reports: it is announced once, and may speak again after any silence.
        """
        blocks, streams, processes = schema.blocks, schema.streams, schema.processes

        def has_partitions(instance_id: sa.Column[str]) -> sa.Exists:
            return sa.exists().where(schema.partitions.c.instance_id == sa.cast(instance_id, sa.Text))

        with self._database.write() as connection:
            self._advance_commit_clock(connection)
            idle_streams = (
                connection.execute(
                    sa.select(streams.c.stream_id)
                    .where(
                        streams.c.last_update_time < last_update,
                        ~sa.exists().where(blocks.c.stream_id == streams.c.stream_id),
                        ~has_partitions(streams.c.stream_id),
                        ~sa.exists().where(
                            processes.c.process_id == streams.c.process_id,
                            processes.c.last_update_time >= last_update,
                        ),
                    )
                    .limit(limit)
                )
                .scalars()
                .all()
            )
            for chunk in chunks(idle_streams):
                connection.execute(sa.delete(schema.stream_tags).where(schema.stream_tags.c.stream_id.in_(chunk)))
                connection.execute(sa.delete(streams).where(streams.c.stream_id.in_(chunk)))
            idle_processes = (
                connection.execute(
                    sa.select(processes.c.process_id)
                    .where(
                        processes.c.last_update_time < last_update,
                        ~sa.exists().where(streams.c.process_id == processes.c.process_id),
                        ~sa.exists().where(blocks.c.process_id == processes.c.process_id),
                        ~has_partitions(processes.c.process_id),
                    )
                    .limit(limit)
                )
                .scalars()
                .all()
            )
            for chunk in chunks(idle_processes):
                connection.execute(sa.delete(processes).where(processes.c.process_id.in_(chunk)))
        return len(idle_streams) + len(idle_processes)

    def swept_until(self, name: str) -> int:
        """How far (ns) the named search has got; 0 at first."""
        marks = schema.sweep_marks
        with self._database.read() as connection:
            mark = connection.execute(sa.select(marks.c.swept_until).where(marks.c.name == name)).scalar_one_or_none()
        return 0 if mark is None else int(mark)

    def set_swept_until(self, name: str, until: int) -> None:
        """Remember how far (ns) the named search has got."""
        statement = self._insert(schema.sweep_marks).values(name=name, swept_until=until)
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"swept_until": until}))
