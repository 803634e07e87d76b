"""What changed among the partitions of global views since somebody looked last, and the ranges of those there are.

Must never miss a change: the database itself writes them down, by triggers (migration 0002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart
from micromegas.lake.metadata.partitions import PARTITION_COLUMNS
from micromegas.lake.metadata.prepared_read import PreparedRead, driver_columns
from micromegas.lake.partition import Partition
from micromegas.lake.rows import PartitionBounds

_GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class ChangedPartitions:
    """The insert times (ns) at which partitions begin that came, went or changed up to a version, and those there are
    now of them."""

    version: int
    begins: frozenset[int]
    partitions: list[Partition]


class PartitionChanges(MetadataPart):
    """The reading half for changes of partitions. Versions of a view set are committed in ascending order."""

    def changed_partitions(self, view_set: str, after: int) -> ChangedPartitions | None:
        """What changed in a global view after a version; None when that is too long ago to be known."""
        rows = self._database.rows(_CHANGES, {"view_set": view_set, "after": after})
        versions = {version for version, *_ in rows}
        newest = max(versions, default=after)
        if len(versions) != newest - after:
            return None
        partitions = {begin: _partition(columns) for _, begin, *columns in rows if columns[0] is not None}
        return ChangedPartitions(newest, frozenset(begin for _, begin, *_ in rows), list(partitions.values()))

    def partition_ranges(self, view_set: str) -> tuple[int, list[PartitionBounds]]:
        """The version of the partitions of a global view (0 when no change was ever written down), and their ranges in
        order of insert time."""
        rows = self._database.rows(_RANGES, {"view_set": view_set})
        return rows[0][0], [PartitionBounds(*columns) for _, *columns in rows if columns[0] is not None]


def newest_change() -> sa.CTE:
    """The number of the newest change of the global view `view_set`."""
    changes = schema.partition_changes.c
    version = sa.func.coalesce(sa.func.max(changes.version), 0).label("version")
    return sa.select(version).where(changes.view_set == _VIEW_SET).cte("newest")


def _partition(columns: Sequence[Any]) -> Partition:
    return Partition(**dict(zip(Partition.__dataclass_fields__, columns, strict=True)))


def _changes() -> PreparedRead:
    changes, partitions = schema.partition_changes, schema.partitions.c
    changed_there = sa.and_(
        partitions.view_set == changes.c.view_set,
        partitions.instance_id == _GLOBAL,
        partitions.begin_insert_time == changes.c.begin_insert_time,
    )
    after = sa.bindparam("after", type_=sa.BigInteger)
    return PreparedRead(
        sa.select(changes.c.version, changes.c.begin_insert_time, *driver_columns(PARTITION_COLUMNS))
        .select_from(changes.outerjoin(schema.partitions, changed_there))
        .where(changes.c.view_set == _VIEW_SET, changes.c.version > after)
    )


def _ranges() -> PreparedRead:
    newest, partitions = newest_change(), schema.partitions.c
    is_global = sa.and_(partitions.view_set == _VIEW_SET, partitions.instance_id == _GLOBAL)
    columns = [partitions[name] for name in PartitionBounds.__dataclass_fields__]
    return PreparedRead(
        sa.select(newest.c.version, *columns)
        .select_from(newest.outerjoin(schema.partitions, is_global))
        .order_by(partitions.begin_insert_time)
    )


_VIEW_SET = sa.bindparam("view_set", type_=sa.Text)
_CHANGES = _changes()
_RANGES = _ranges()
