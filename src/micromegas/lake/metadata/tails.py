"""What every query of a global view asks first: have its partitions changed, and which blocks lie where there are none.

One statement answers both as of one moment. It must never return a pending block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.blocks import (
    BLOCK_COLUMNS,
    earliest_stamp,
    latest_stamp,
    may_hold,
    with_object_key,
)
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.metadata.partition_changes import newest_change
from micromegas.lake.metadata.prepared_read import PreparedRead, driver_columns
from micromegas.lake.rows import BlockRow

ANY_VERSION = 2**63 - 1
_RANGES_PER_STATEMENT = 50
_COLUMNS = driver_columns(BLOCK_COLUMNS)


@dataclass(frozen=True, slots=True)
class TailConditions:
    """Blocks of streams of a tag that may hold events within an inclusive range (ns, None = open), of one process or of
    all; no more than `limit`, whichever."""

    tag: str
    limit: int
    process_id: str | None = None
    event_begin: int | None = None
    event_end: int | None = None


@dataclass(slots=True)
class Tail:
    """The version of a view's partitions at a moment, and the blocks asked for by (insert_time, block_id)."""

    version: int
    blocks: list[BlockRow] = field(default_factory=list)


class Tails(MetadataPart):
    """The reading half for what partitions don't cover."""

    def tail(
        self,
        view_set: str,
        gaps: Sequence[tuple[int, int]],
        conditions: TailConditions | None,
        *,
        from_version: int = 0,
        to_version: int = ANY_VERSION,
    ) -> Tail:
        """The version of the partitions of a global view, 0 when no change was ever written down; and where it is one
        of those given, the visible blocks in `gaps` that meet the conditions (None: none do).

        `gaps` are half-open ranges of insert time (ns). Costs what is found, however much lies outside of them.
        """
        values = {"view_set": view_set, "from_version": from_version, "to_version": to_version}
        if conditions is None or not gaps:
            return Tail(self._database.rows(_tail(0, of_process=False), values)[0][0])
        values |= {
            "tag": conditions.tag,
            "event_begin": -(2**63) if conditions.event_begin is None else earliest_stamp(conditions.event_begin),
            "event_end": 2**63 - 1 if conditions.event_end is None else latest_stamp(conditions.event_end),
        }
        if conditions.process_id is not None:
            values["process_id"] = conditions.process_id
        tail: Tail | None = None
        found: list[BlockRow] = []
        for chunk in chunks(gaps, _RANGES_PER_STATEMENT):
            for number, (begin, end) in enumerate(chunk):
                values |= {f"begin_{number}": begin, f"end_{number}": end}
            values["limit"] = conditions.limit - len(found)
            statement = _tail(len(chunk), of_process=conditions.process_id is not None)
            rows = self._database.rows(statement, values)
            tail = tail or Tail(rows[0][0])
            found.extend(with_object_key(BlockRow(*block)) for _, *block in rows if block[0] is not None)
            if not from_version <= tail.version <= to_version or len(found) == conditions.limit:
                break
            # The first statement told the version. What changes from then on doesn't matter: the gaps are of before.
            values["to_version"] = ANY_VERSION
        assert tail is not None
        tail.blocks = sorted(found, key=lambda block: (block.insert_time, block.block_id))
        return tail


@cache
def _tail(gaps: int, *, of_process: bool) -> PreparedRead:
    newest, blocks = newest_change(), schema.blocks.c
    if not gaps:
        return PreparedRead(sa.select(newest.c.version))
    # A range that is empty where another version is the newest: any other condition is tested for each block.
    is_wanted = sa.select(newest.c.version).scalar_subquery().between(_integer("from_version"), _integer("to_version"))
    tags, tag = schema.stream_tags.c, sa.bindparam("tag", type_=sa.Text)
    # Not EXISTS: PostgreSQL would join, and for that read the tags of all streams.
    own_tag = sa.select(tags.tag).where(tags.stream_id == blocks.stream_id, tags.tag == tag).scalar_subquery()
    conditions = [
        own_tag.is_not(None),
        may_hold(blocks.max_event_time >= _integer("event_begin")),
        may_hold(blocks.min_event_time <= _integer("event_end")),
    ]
    if of_process:
        conditions.append(blocks.process_id == sa.bindparam("process_id", type_=blocks.process_id.type))
    # A statement per range, as it were: any other form makes the databases look through all blocks.
    parts = [
        sa.select(*_COLUMNS).where(
            blocks.insert_time >= sa.case((is_wanted, _integer(f"begin_{number}")), else_=ANY_VERSION),
            blocks.insert_time < _integer(f"end_{number}"),
            *conditions,
        )
        for number in range(gaps)
    ]
    tail = sa.union_all(*parts).limit(_integer("limit")).subquery("tail")
    return PreparedRead(sa.select(newest.c.version, *tail.c).select_from(newest.outerjoin(tail, sa.true())))


def _integer(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)
