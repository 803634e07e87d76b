"""Partitions of views: listing them, and replacing a set of them by a new one in one transaction.

It must never leave two partitions of one view instance that overlap in insert time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from micromegas.lake.errors import LakeError, PartitionConflict, UnknownPartitions
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.database import Database
from micromegas.lake.metadata.part import Clock, MetadataPart, chunks
from micromegas.lake.partition import Partition, PartitionRange
from micromegas.lake.rows import LeaseClaim

PARTITION_COLUMNS = [schema.partitions.c[name] for name in Partition.__dataclass_fields__]
_COLUMNS = schema.partitions.c
_SELECTED_BY = {
    "insert_begin": _COLUMNS.end_insert_time > sa.bindparam("insert_begin"),
    "insert_end": _COLUMNS.begin_insert_time < sa.bindparam("insert_end"),
    "event_begin": _COLUMNS.max_event_time >= sa.bindparam("event_begin"),
    "event_end": _COLUMNS.min_event_time <= sa.bindparam("event_end"),
    "begins": _COLUMNS.begin_insert_time.in_(sa.bindparam("begins", expanding=True)),
    "ids": _COLUMNS.partition_id.in_(sa.bindparam("ids", expanding=True)),
}
_DELETE = sa.delete(schema.partitions).where(_SELECTED_BY["ids"])
_INSERT = sa.insert(schema.partitions)
_STATE = sa.select(_COLUMNS.carried_state).where(_COLUMNS.partition_id == sa.bindparam("partition_id"))
_ADOPT = sa.delete(schema.expiring_objects).where(
    schema.expiring_objects.c.path == sa.bindparam("path"), schema.expiring_objects.c.doomed.is_(False)
)


@dataclass(frozen=True, slots=True)
class ViewSetConditions:
    """Partitions of these view sets only (None: of all), of none of those, and of these instances (None: of all)."""

    only: frozenset[str] | None = None
    none_of: frozenset[str] = frozenset()
    instances: Sequence[str] | None = None

    def filters(self) -> list[sa.ColumnElement[bool]]:
        """The conditions as expressions on `partitions`."""
        column = schema.partitions.c.view_set
        filters: list[sa.ColumnElement[bool]] = []
        if self.only is not None:
            filters.append(column.in_(sorted(self.only)))
        if self.none_of:
            filters.append(column.not_in(sorted(self.none_of)))
        if self.instances is not None:
            filters.append(schema.partitions.c.instance_id.in_(self.instances))
        return filters


EVERY_VIEW_SET = ViewSetConditions()


class Partitions(MetadataPart):
    """Listing and replacing partitions."""

    def __init__(self, database: Database, clock: Clock, retired_grace_ns: int) -> None:
        super().__init__(database, clock)
        self._retired_grace_ns = retired_grace_ns

    def partitions(
        self,
        view_set: str,
        instance_id: str,
        *,
        insert_begin: int | None = None,
        insert_end: int | None = None,
        event_begin: int | None = None,
        event_end: int | None = None,
    ) -> list[Partition]:
        """Partitions of a view instance by insert time, whatever their schema hash.

        `insert_*`: those overlapping this half-open range of insert time. `event_*`: those whose inclusive event range
        meets this inclusive range (empty partitions never do).
        """
        values = {
            "insert_begin": insert_begin,
            "insert_end": insert_end,
            "event_begin": event_begin,
            "event_end": event_end,
        }
        given = {name: value for name, value in values.items() if value is not None}
        with self._database.read() as connection:
            return _of_instance(connection, view_set, instance_id, given)

    def streams_with_rows(
        self, view_set: str, process_id: str, event_begin: int | None, event_end: int | None
    ) -> list[str]:
        """Ids of the streams of a process of which the view set has partitions whose inclusive event range meets this
        inclusive range."""
        columns, streams = schema.partitions.c, schema.streams.c
        conditions = [
            columns.view_set == view_set,
            columns.instance_id == sa.cast(streams.stream_id, sa.Text),
            columns.max_event_time.is_not(None) if event_begin is None else columns.max_event_time >= event_begin,
            columns.min_event_time.is_not(None) if event_end is None else columns.min_event_time <= event_end,
        ]
        statement = (
            sa.select(streams.stream_id)
            .where(streams.process_id == process_id, sa.exists().where(*conditions))
            .order_by(streams.stream_id)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement).scalars())

    def partitions_beginning_at(self, view_set: str, instance_id: str, begins: Iterable[int]) -> list[Partition]:
        """Partitions of a view instance that begin at one of these insert times (ns, ascending), by insert time."""
        found: list[Partition] = []
        with self._database.read() as connection:
            for chunk in chunks(begins):
                found += _of_instance(connection, view_set, instance_id, {"begins": chunk})
        return found

    def partitions_of_schemas(self, view_set: str, schema_hashes: Iterable[bytes], limit: int) -> list[Partition]:
        """Up to `limit` partitions of all instances of a view set that have one of these schema hashes: those with
        failed blocks first, then the newest."""
        columns = schema.partitions.c
        statement = (
            sa.select(*PARTITION_COLUMNS)
            .where(columns.view_set == view_set, columns.schema_hash.in_(list(schema_hashes)))
            .order_by(sa.desc(columns.failed_blocks > 0), columns.begin_insert_time.desc(), columns.partition_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Partition(**row) for row in connection.execute(statement).mappings()]

    def all_partitions(self) -> list[Partition]:
        """Every partition of the lake, by view set, instance and insert time."""
        with self._database.read() as connection:
            return _select_partitions(connection, [])

    def replace_partitions(
        self,
        view_set: str,
        instance_id: str,
        expected_ids: frozenset[str],
        new: Partition | None,
        claim: LeaseClaim | None = None,
        *,
        carried_state: bytes | None = None,
    ) -> None:
        """Retire `expected_ids` and add `new`, all or nothing; uses up the lease that `claim` names.

        `carried_state` is what `new` hands on to the partition after it, kept as long as `new` is.

        The partitions that overlap the insert range of `new` must be exactly `expected_ids` (without `new`: they must
        all exist), the file of `new` must still be registered by `add_expiring_object`, and the claimant must still
        have its lease: otherwise `PartitionConflict`, and nothing changes. Retired files are deleted after the grace
        period, for the queries that still read them.
        """
        if new is not None and (new.view_set, new.instance_id) != (view_set, instance_id):
            raise LakeError(f"partition of {new.view_set}/{new.instance_id} given for {view_set}/{instance_id}")
        name = f"{view_set}/{instance_id}"
        with self._database.write() as connection:
            self._lock_name(connection, _lock_of(view_set, instance_id))
            if claim is not None and not self._use_up(connection, claim):
                raise PartitionConflict(f"lease {claim.name} was lost to another builder")
            given: dict[str, object] = {"ids": sorted(expected_ids)}
            if new is not None:
                given = {"insert_begin": new.begin_insert_time, "insert_end": new.end_insert_time}
            present = _of_instance(connection, view_set, instance_id, given)
            present_ids = {partition.partition_id for partition in present}
            if present_ids != expected_ids:
                raise PartitionConflict(
                    f"partitions of {name} changed: {len(present_ids - expected_ids)} unexpected, "
                    f"{len(expected_ids - present_ids)} gone"
                )
            if present_ids:
                connection.execute(_DELETE, {"ids": sorted(present_ids)})
                self._expire_files(connection, [each.file_path for each in present if each.file_path is not None])
            if new is not None:
                if new.file_path is not None:
                    self._adopt(connection, new.file_path)
                connection.execute(_INSERT, asdict(new) | {"carried_state": carried_state})

    def carried_state(self, partition_id: str) -> bytes | None:
        """What a partition hands on; None when it hands nothing on, or is not there any more."""
        with self._database.read() as connection:
            state = connection.execute(_STATE, {"partition_id": partition_id}).scalar_one_or_none()
        return None if state is None else bytes(state)

    def expired_partitions(self, end_insert_time: int, conditions: ViewSetConditions) -> tuple[int, int]:
        """How many partitions end at or before this insert time (ns), and the bytes of their files."""
        columns = schema.partitions.c
        statement = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(columns.file_size), 0)).where(
            columns.end_insert_time <= end_insert_time, *conditions.filters()
        )
        with self._database.read() as connection:
            count, size = connection.execute(statement).one()
        return int(count), int(size)

    def instances_before(self, view_set: str, end_insert_time: int) -> set[str]:
        """The instances of a view set that have a partition that ends at or before this insert time (ns)."""
        columns = schema.partitions.c
        statement = (
            sa.select(columns.instance_id)
            .where(columns.view_set == view_set, columns.end_insert_time <= end_insert_time)
            .distinct()
        )
        with self._database.read() as connection:
            return set(connection.execute(statement).scalars())

    def retire_partitions_before(
        self, end_insert_time: int, limit: int, conditions: ViewSetConditions = EVERY_VIEW_SET
    ) -> int:
        """Retire up to `limit` partitions that end at or before this insert time (ns); returns how many."""
        columns = schema.partitions.c
        with self._database.write() as connection:
            oldest = (
                sa.select(columns.partition_id)
                .where(columns.end_insert_time <= end_insert_time, *conditions.filters())
                .order_by(columns.end_insert_time, columns.partition_id)
                .limit(limit)
            )
            # What is deleted is what is there now: a partition that was replaced meanwhile is not among it.
            retired = connection.execute(
                sa.delete(schema.partitions).where(columns.partition_id.in_(oldest)).returning(columns.file_path)
            ).all()
            self._expire_files(connection, [row.file_path for row in retired if row.file_path is not None])
        return len(retired)

    def retire_partitions_within(self, view_set: str, instance_id: str, begin: int, end: int) -> list[Partition]:
        """Retire, in one transaction, every partition of a view instance whose insert range lies wholly within this one
        (ns, half-open), whatever its schema; returns them."""
        columns = schema.partitions.c
        within = [
            columns.view_set == view_set,
            columns.instance_id == instance_id,
            columns.begin_insert_time >= begin,
            columns.end_insert_time <= end,
        ]
        with self._database.write() as connection:
            self._lock_name(connection, _lock_of(view_set, instance_id))
            retired = _select_partitions(connection, within)
            connection.execute(sa.delete(schema.partitions).where(*within))
            self._expire_files(connection, [each.file_path for each in retired if each.file_path is not None])
        return retired

    def retire_partition_files(self, paths: Iterable[str]) -> None:
        """Retire the partitions of these files in one transaction; raises `UnknownPartitions`, and retires none, when
        there is a path that no partition has."""
        wanted = frozenset(paths)
        path_column = schema.partitions.c.file_path
        with self._database.write() as connection:
            found: list[Partition] = []
            for chunk in chunks(sorted(wanted)):
                found += _select_partitions(connection, [path_column.in_(chunk)])
            self._retire_found(connection, found)
            missing = wanted - {each.file_path for each in found}
            if missing:
                raise UnknownPartitions(missing)

    def retire_partition_ranges(self, ranges: Iterable[PartitionRange]) -> None:
        """Retire the partitions of exactly these ranges in one transaction; raises `UnknownPartitions`, and retires
        none, when there is a range that no partition has."""
        columns = schema.partitions.c
        found: dict[str, Partition] = {}
        missing: set[PartitionRange] = set()
        with self._database.write() as connection:
            for each in dict.fromkeys(ranges):
                conditions = [
                    columns.view_set == each.view_set,
                    columns.instance_id == each.instance_id,
                    columns.begin_insert_time == each.begin_insert_time,
                    columns.end_insert_time == each.end_insert_time,
                ]
                if each.schema_hash is not None:
                    conditions.append(columns.schema_hash == each.schema_hash)
                partitions = _select_partitions(connection, conditions)
                found |= {partition.partition_id: partition for partition in partitions}
                if not partitions:
                    missing.add(each)
            if missing:
                raise UnknownPartitions(frozenset(missing))
            self._retire_found(connection, list(found.values()))

    def _retire_found(self, connection: sa.Connection, found: Sequence[Partition]) -> None:
        """Retire what was found before its locks were taken; `PartitionConflict` when it has changed since."""
        for name in sorted({_lock_of(each.view_set, each.instance_id) for each in found}):
            self._lock_name(connection, name)
        deleted = 0
        for chunk in chunks([each.partition_id for each in found]):
            deleted += connection.execute(_DELETE, {"ids": chunk}).rowcount
        if deleted != len(found):
            raise PartitionConflict(f"{len(found) - deleted} partitions were replaced meanwhile")
        self._expire_files(connection, [each.file_path for each in found if each.file_path is not None])

    def _expire_files(self, connection: sa.Connection, paths: list[str]) -> None:
        expires = self._clock() + self._retired_grace_ns
        rows = [{"path": path, "expires": expires, "doomed": False} for path in paths]
        if rows:
            connection.execute(self._insert(schema.expiring_objects).on_conflict_do_nothing(), rows)

    def _adopt(self, connection: sa.Connection, path: str) -> None:
        """Take the new file off the list of what is to be deleted."""
        if connection.execute(_ADOPT, {"path": path}).rowcount != 1:
            raise PartitionConflict(f"partition file {path} is not registered as being written, or expired meanwhile")


def _lock_of(view_set: str, instance_id: str) -> str:
    """What whoever changes the partitions of a view instance locks."""
    return f"partitions/{view_set}/{instance_id}"


@lru_cache
def _listing(given: frozenset[str]) -> sa.Select[*tuple[Any, ...]]:
    """The partitions of a view instance that meet these conditions, by insert time."""
    conditions = [_SELECTED_BY[name] for name in sorted(given)]
    return (
        sa.select(*PARTITION_COLUMNS)
        .where(
            _COLUMNS.view_set == sa.bindparam("view_set"),
            _COLUMNS.instance_id == sa.bindparam("instance_id"),
            *conditions,
        )
        .order_by(_COLUMNS.begin_insert_time, _COLUMNS.partition_id)
    )


def _of_instance(
    connection: sa.Connection, view_set: str, instance_id: str, given: Mapping[str, object]
) -> list[Partition]:
    """The partitions of a view instance that meet the conditions of `_SELECTED_BY` with the values given."""
    rows = connection.execute(_listing(frozenset(given)), {"view_set": view_set, "instance_id": instance_id, **given})
    return [Partition(**row) for row in rows.mappings()]


def _select_partitions(connection: sa.Connection, conditions: list[sa.ColumnElement[bool]]) -> list[Partition]:
    columns = schema.partitions.c
    statement = (
        sa.select(*PARTITION_COLUMNS)
        .where(*conditions)
        .order_by(columns.view_set, columns.instance_id, columns.begin_insert_time, columns.partition_id)
    )
    return [Partition(**row) for row in connection.execute(statement).mappings()]
