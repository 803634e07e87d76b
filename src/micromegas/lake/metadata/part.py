"""What the parts of the metadata face share: the database, the clock, and small helpers for their statements.

It must never hold state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from micromegas.lake.metadata import schema, statements
from micromegas.lake.metadata.database import Database
from micromegas.lake.rows import LeaseClaim

IDS_PER_STATEMENT = 500
ADVANCE_COMMIT_CLOCK = sa.text(statements.ADVANCE_COMMIT_CLOCK)
# What runs for each partition or query is built once: building takes SQLAlchemy longer than all else of a statement.
_LOCK_NAME = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(sa.bindparam("name", type_=sa.Text), 0)))
_USE_UP = sa.delete(schema.leases).where(
    schema.leases.c.name == sa.bindparam("name"), schema.leases.c.token == sa.bindparam("token")
)
Item = TypeVar("Item")
Clock = Callable[[], int]
"""Gives the wall time in ns since the epoch."""


class MetadataPart:
    """Base of every part of `Metadata`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT of the dialect in use, which knows ON CONFLICT."""
        return postgresql.insert(table) if self._database.is_postgres else sqlite.insert(table)

    def _advance_commit_clock(self, connection: sa.Connection) -> int:
        """Take the turn of this transaction and its insert time (ns): greater than that of every commit before it.

        The row stays locked until the transaction ends, so insert times are committed in their order and whoever has
        read a watermark has seen everything up to it. When the wall clock goes back, insert times go on by 1 ns.
        """
        return int(connection.execute(ADVANCE_COMMIT_CLOCK, {"now": self._clock()}).scalar_one())

    def _use_up(self, connection: sa.Connection, claim: LeaseClaim) -> bool:
        """Forget a lease in this transaction; False when it is not the claimant's any more."""
        # Whoever takes leases over must not do so between reading the row and writing it.
        self._lock_name(connection, f"lease/{claim.name}")
        return connection.execute(_USE_UP, {"name": claim.name, "token": claim.token}).rowcount == 1

    def _lock_name(self, connection: sa.Connection, name: str) -> None:
        """Make transactions that name the same thing take turns (SQLite's gate does so for all of them)."""
        if self._database.is_postgres:
            connection.execute(_LOCK_NAME, {"name": name})


def chunks(items: Iterable[Item], size: int = IDS_PER_STATEMENT) -> Iterator[Sequence[Item]]:
    """Cut a sequence so that a statement's parameters stay below what the databases admit."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
