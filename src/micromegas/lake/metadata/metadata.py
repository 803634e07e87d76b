"""The one face of the metadata database, put together from its parts. It must never hold logic of its own."""

from __future__ import annotations

import time

import sqlalchemy as sa

from micromegas.config import LakeSettings
from micromegas.lake.metadata.announcements import AnnouncementReads
from micromegas.lake.metadata.block_errors import BlockErrors
from micromegas.lake.metadata.block_records import BlockRecords
from micromegas.lake.metadata.blocks import BlockReads
from micromegas.lake.metadata.commits import Commits
from micromegas.lake.metadata.database import open_database
from micromegas.lake.metadata.expiring import ExpiringObjects
from micromegas.lake.metadata.leases import Leases
from micromegas.lake.metadata.migration import migrate
from micromegas.lake.metadata.part import Clock
from micromegas.lake.metadata.partition_changes import PartitionChanges
from micromegas.lake.metadata.partitions import Partitions
from micromegas.lake.metadata.query_denials import QueryDenials
from micromegas.lake.metadata.replicas import Replicas
from micromegas.lake.metadata.retention import Retention
from micromegas.lake.metadata.tails import Tails


class Metadata(
    Commits,
    BlockReads,
    BlockRecords,
    AnnouncementReads,
    Partitions,
    PartitionChanges,
    Tails,
    ExpiringObjects,
    Leases,
    BlockErrors,
    Replicas,
    QueryDenials,
    Retention,
):
    """The metadata database of a lake.

    Synchronous and thread-safe. All times are ns since the epoch. Every method raises `LakeUnavailable` when the
    database does not answer.
    """

    @classmethod
    def open(cls, settings: LakeSettings, clock: Clock = time.time_ns) -> Metadata:
        """Connect and migrate; raises `LakeTooNew` when a newer program made the database incompatible."""
        database = open_database(settings)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock, int(settings.retired_grace_s * 1e9))

    def check(self) -> None:
        """Return when the database answers."""
        with self._database.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        """Close all connections; a stream of rows that is still read must be closed before."""
        self._database.close()
