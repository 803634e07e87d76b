"""Objects that are to be deleted: files being written (until a row adopts them) and retired ones.

It must never let an object be adopted and deleted both: whoever deletes dooms it first.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import ExpiringObject

_ADD = sa.insert(schema.expiring_objects)


class ExpiringObjects(MetadataPart):
    """The list of what is to be deleted."""

    def add_expiring_object(self, path: str, expires: int) -> None:
        """Register an object *before* it is written, so that a killed writer leaks nothing.

        It is deleted after `expires` (ns) unless `replace_partitions` adopts it before.
        """
        with self._database.write() as connection:
            connection.execute(_ADD, {"path": path, "expires": expires, "doomed": False})

    def expired_objects(self, limit: int) -> list[ExpiringObject]:
        """Up to `limit` objects whose time has come, oldest first; from now on nobody can adopt them.

        Doomed ones that were not forgotten (the deleter died) are returned again.
        """
        columns = schema.expiring_objects.c
        with self._database.write() as connection:
            self._lock_name(connection, "expiring_objects")
            rows = connection.execute(
                sa.select(columns.path, columns.expires)
                .where(columns.expires <= self._clock())
                .order_by(columns.expires, columns.path)
                .limit(limit)
            ).all()
            doomed: set[str] = set()
            for chunk in chunks([row.path for row in rows]):
                # A row that a writer adopted meanwhile is gone and does not come back from here.
                doomed.update(
                    connection.execute(
                        sa.update(schema.expiring_objects)
                        .where(columns.path.in_(chunk))
                        .values(doomed=True)
                        .returning(columns.path)
                    ).scalars()
                )
        return [ExpiringObject(row.path, row.expires) for row in rows if row.path in doomed]

    def expiring_among(self, paths: Sequence[str]) -> set[str]:
        """Those of the objects that are on the list."""
        column = schema.expiring_objects.c.path
        found: set[str] = set()
        with self._database.read() as connection:
            for chunk in chunks(paths):
                found.update(connection.execute(sa.select(column).where(column.in_(chunk))).scalars())
        return found

    def forget_expiring(self, paths: Sequence[str]) -> None:
        """Take deleted objects off the list."""
        with self._database.write() as connection:
            for chunk in chunks(paths):
                connection.execute(sa.delete(schema.expiring_objects).where(schema.expiring_objects.c.path.in_(chunk)))
