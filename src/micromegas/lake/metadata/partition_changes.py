"""What changed among the partitions of global views since somebody looked last, and the ranges of those there are.

Must never miss a change: the database itself writes them down, by triggers (migration 0002).
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import PartitionBounds

_RANGE_COLUMNS = [schema.partitions.c[name] for name in PartitionBounds.__dataclass_fields__]
_GLOBAL = "global"


class PartitionChanges(MetadataPart):
    """The reading half for changes of partitions. Versions of a view set are committed in ascending order."""

    def partition_version(self, view_set: str) -> int:
        """Number of the newest change among the partitions of a global view; 0 when none was ever written down."""
        changes = schema.partition_changes.c
        with self._database.read() as connection:
            statement = sa.select(sa.func.max(changes.version)).where(changes.view_set == view_set)
            return connection.execute(statement).scalar_one() or 0

    def changed_partitions(self, view_set: str, after: int, until: int) -> set[int] | None:
        """First insert times (ns) at which partitions came, went or changed by versions in (after, until]; None when
        that is too long ago to be known."""
        changes = schema.partition_changes.c
        statement = sa.select(changes.begin_insert_time).where(
            changes.view_set == view_set, changes.version > after, changes.version <= until
        )
        with self._database.read() as connection:
            begins = connection.execute(statement).scalars().all()
        return set(begins) if len(begins) == until - after else None

    def partition_ranges(self, view_set: str, begins: Iterable[int] | None = None) -> list[PartitionBounds]:
        """Ranges of the partitions of a global view, of all or of those that begin at one of these insert times (ns);
        in order of insert time."""
        columns = schema.partitions.c
        statement = (
            sa.select(*_RANGE_COLUMNS)
            .where(columns.view_set == view_set, columns.instance_id == _GLOBAL)
            .order_by(columns.begin_insert_time)
        )
        found: list[PartitionBounds] = []
        with self._database.read() as connection:
            if begins is None:
                return [PartitionBounds(*row) for row in connection.execute(statement)]
            for chunk in chunks(sorted(begins)):
                rows = connection.execute(statement.where(columns.begin_insert_time.in_(chunk)))
                found.extend(PartitionBounds(*row) for row in rows)
        return found
