"""Finding visible blocks by time, stream, process and tag. It must never return a pending block."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypedDict, Unpack

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart
from micromegas.lake.rows import BlockIds, BlockRow

BLOCK_COLUMNS = [schema.blocks.c[name] for name in BlockRow.__dataclass_fields__]
BlockOrder = Literal["insert", "event"]

# A thread reads the clock before it gets at the stream, so its event may be in the block behind the one that it was
# made in: earlier than that begins, by as long as the thread had to wait.
STAMP_MARGIN = 10_000_000_000


class BlockConditions(TypedDict, total=False):
    """Which visible blocks are meant: those that meet every condition given (None is none).

    * `insert_begin`, `insert_end`: half-open range of insert time (ns).
    * `event_begin`, `event_end`: the block may hold events within this inclusive range (ns).
    * `time_begin`, `time_end`: the times between the block's `begin_time` and `end_time`, whichever is earlier, meet
      this inclusive range (ns).
    * `tag`: a tag of the block's stream.
    """

    tag: str | None
    process_id: str | None
    stream_id: str | None
    insert_begin: int | None
    insert_end: int | None
    event_begin: int | None
    event_end: int | None
    time_begin: int | None
    time_end: int | None


def block_filter(conditions: BlockConditions) -> list[sa.ColumnElement[bool]]:
    """The conditions as expressions on `blocks`."""
    blocks = schema.blocks.c
    filters: list[sa.ColumnElement[bool]] = []
    if conditions.get("insert_begin") is None and conditions.get("insert_end") is None:
        # Pending blocks are few: adding 0 keeps SQLite from walking the index of insert times to leave them out.
        filters.append((blocks.insert_time + 0).is_not(None))
    if (tag := conditions.get("tag")) is not None:
        tags = schema.stream_tags.c
        filters.append(sa.exists().where(tags.stream_id == blocks.stream_id, tags.tag == tag))
    if (process_id := conditions.get("process_id")) is not None:
        filters.append(blocks.process_id == process_id)
    if (stream_id := conditions.get("stream_id")) is not None:
        filters.append(blocks.stream_id == stream_id)
    if (insert_begin := conditions.get("insert_begin")) is not None:
        filters.append(blocks.insert_time >= insert_begin)
    if (insert_end := conditions.get("insert_end")) is not None:
        filters.append(blocks.insert_time < insert_end)
    if (event_begin := conditions.get("event_begin")) is not None:
        filters.append(may_hold(blocks.max_event_time >= earliest_stamp(event_begin)))
    if (event_end := conditions.get("event_end")) is not None:
        filters.append(may_hold(blocks.min_event_time <= latest_stamp(event_end)))
    # The sender's clock may be set back within a block; an index holds the few of that kind.
    is_set_back = blocks.begin_time > blocks.end_time
    if (time_begin := conditions.get("time_begin")) is not None:
        filters.append(sa.or_(blocks.end_time >= time_begin, is_set_back & (blocks.begin_time >= time_begin)))
    if (time_end := conditions.get("time_end")) is not None:
        filters.append(sa.or_(blocks.begin_time <= time_end, is_set_back & (blocks.end_time <= time_end)))
    return filters


def may_hold(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """That a condition on the event times of a block holds, or nothing tells them."""
    return sa.or_(condition, schema.blocks.c.max_event_time.is_(None))


def earliest_stamp(event_begin: int) -> int:
    """What the latest event of a block must reach (ns) for the block to hold events from this time on."""
    return max(event_begin - STAMP_MARGIN, -(2**63))


def latest_stamp(event_end: int) -> int:
    """What the earliest event of a block must not pass (ns) for the block to hold events up to this time."""
    return min(event_end + STAMP_MARGIN, 2**63 - 1)


def block_order(order: BlockOrder) -> list[sa.ColumnElement[object]]:
    """The order that makes every listing of blocks the same each time."""
    blocks = schema.blocks.c
    if order == "event":
        return [blocks.begin_ticks, blocks.end_ticks, blocks.block_id]
    # SQLite would rather walk the whole index of insert times than sort what the index of end times finds: adding 0
    # takes that choice away. Where insert times are asked for, their index is still used, for the condition.
    return [blocks.insert_time + 0, blocks.block_id]


def long_streams(tag: str, insert_begin: int, min_events: int) -> sa.Select[str]:
    """See `BlockReads.long_streams`."""
    blocks = schema.blocks.c
    # SQLite would rather walk the whole index of streams than group what the index of insert times finds.
    stream_id = sa.func.coalesce(blocks.stream_id, blocks.stream_id)
    return (
        sa.select(stream_id)
        .where(*block_filter({"tag": tag, "insert_begin": insert_begin}))
        .group_by(stream_id)
        # Each by itself: a sender may say such offsets that the sum is beyond a bigint.
        .having(sa.or_(sa.func.max(blocks.object_offset) >= min_events, sa.func.max(blocks.nb_objects) >= min_events))
        .order_by(stream_id)
    )


class BlockReads(MetadataPart):
    """The reading half for blocks."""

    def blocks(
        self, *, order: BlockOrder = "insert", limit: int | None = None, **conditions: Unpack[BlockConditions]
    ) -> list[BlockRow]:
        """Visible blocks that meet the conditions.

        `order`: `insert` = (insert_time, block_id), `event` = (begin_ticks, end_ticks, block_id).
        """
        statement = (
            sa.select(*BLOCK_COLUMNS).where(*block_filter(conditions)).order_by(*block_order(order)).limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [with_object_key(BlockRow(*row)) for row in rows]

    def count_blocks(self, **conditions: Unpack[BlockConditions]) -> int:
        """How many visible blocks meet the conditions."""
        statement = sa.select(sa.func.count()).select_from(schema.blocks).where(*block_filter(conditions))
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def count_events(self, **conditions: Unpack[BlockConditions]) -> int:
        """How many events the visible blocks have that meet the conditions."""
        events = sa.func.coalesce(sa.func.sum(schema.blocks.c.nb_objects), 0)
        statement = sa.select(events).select_from(schema.blocks).where(*block_filter(conditions))
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def stream_ids(self, **conditions: Unpack[BlockConditions]) -> list[str]:
        """Ids of the streams that have visible blocks that meet the conditions."""
        column = schema.blocks.c.stream_id
        statement = sa.select(column).where(*block_filter(conditions)).distinct().order_by(column)
        with self._database.read() as connection:
            return list(connection.execute(statement).scalars())

    def long_streams(self, tag: str, insert_begin: int, min_events: int) -> list[str]:
        """Ids of the streams of a tag of which a block became visible since (ns), and that had at least so many events
        before the newest, or in one."""
        with self._database.read() as connection:
            return list(connection.execute(long_streams(tag, insert_begin, min_events)).scalars())

    def block(self, block_id: str) -> BlockRow | None:
        """The visible block of this id."""
        blocks = schema.blocks.c
        statement = sa.select(*BLOCK_COLUMNS).where(blocks.block_id == block_id, blocks.insert_time.is_not(None))
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return None if row is None else with_object_key(BlockRow(*row))


def with_object_key(row: BlockRow) -> BlockRow:
    """The row as it is; its object key may be NULL in the table, in the field it may not."""
    if row.object_key is not None:
        return row
    return replace(row, object_key=BlockIds(row.block_id, row.stream_id, row.process_id).lone_object_key)
