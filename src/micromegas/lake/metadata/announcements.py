"""Reading the known processes and streams. It must never scan blocks: the commits keep the sums on these rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.database import driver_rows
from micromegas.lake.metadata.part import MetadataPart, chunks
from micromegas.lake.rows import ProcessRow, StreamRow

PROCESS_COLUMNS = [schema.processes.c[name] for name in ProcessRow.__dataclass_fields__]
_ROWS_PER_PART = 8192
STREAM_COLUMNS = [schema.streams.c[name] for name in StreamRow.__dataclass_fields__]
_IDS: sa.BindParameter[str] = sa.bindparam("ids", expanding=True)
_PROCESSES = sa.select(*PROCESS_COLUMNS).where(schema.processes.c.process_id.in_(_IDS))
_STREAMS = sa.select(*STREAM_COLUMNS).where(schema.streams.c.stream_id.in_(_IDS))


class AnnouncementReads(MetadataPart):
    """The reading half for processes and streams."""

    def processes(self, ids: Iterable[str]) -> dict[str, ProcessRow]:
        """The processes of these ids; unknown ids are absent."""
        found: dict[str, ProcessRow] = {}
        with self._database.read() as connection:
            for chunk in chunks(dict.fromkeys(ids)):
                found.update((row[0], ProcessRow(*row)) for row in connection.execute(_PROCESSES, {"ids": chunk}))
        return found

    def streams(self, ids: Iterable[str]) -> dict[str, StreamRow]:
        """The streams of these ids; unknown ids are absent."""
        found: dict[str, StreamRow] = {}
        with self._database.read() as connection:
            for chunk in chunks(dict.fromkeys(ids)):
                found.update((row[0], StreamRow(*row)) for row in connection.execute(_STREAMS, {"ids": chunk}))
        return found

    def process_rows(
        self, *, process_id: str | None = None, update_begin: int | None = None, update_end: int | None = None
    ) -> list[ProcessRow]:
        """Known processes by insert time.

        Those with `insert_time <= update_end` and `last_update_time >= update_begin`; processes without any
        visible block are included.
        """
        processes = schema.processes.c
        statement = (
            sa.select(*PROCESS_COLUMNS)
            .where(*_updated(schema.processes, {"process_id": process_id}, update_begin, update_end))
            .order_by(processes.insert_time, processes.process_id)
        )
        with self._database.read() as connection:
            return [ProcessRow(*row) for row in connection.execute(statement)]

    def stream_rows(
        self,
        *,
        stream_id: str | None = None,
        process_id: str | None = None,
        tag: str | None = None,
        update_begin: int | None = None,
        update_end: int | None = None,
    ) -> list[StreamRow]:
        """Known streams by insert time; conditions as in `process_rows`, and `tag` = one of the stream's tags."""
        streams, tags = schema.streams.c, schema.stream_tags.c
        ids = {"stream_id": stream_id, "process_id": process_id}
        statement = (
            sa.select(*STREAM_COLUMNS)
            .where(*_updated(schema.streams, ids, update_begin, update_end))
            .order_by(streams.insert_time, streams.stream_id)
        )
        if tag is not None:
            statement = statement.where(sa.exists().where(tags.stream_id == streams.stream_id, tags.tag == tag))
        with self._database.read() as connection:
            return [StreamRow(*row) for row in connection.execute(statement)]

    def stream_owners(self) -> dict[str, str]:
        """By id, the process of every known stream."""
        owners: dict[str, str] = {}
        for stream_ids, process_ids in self._values(schema.streams, ["stream_id", "process_id"], []):
            owners.update(zip(stream_ids, process_ids, strict=True))
        return owners

    def streams_tagged(self, tag: str) -> set[str]:
        """The ids of all streams that have a tag."""
        tagged: set[str] = set()
        for (stream_ids,) in self._values(schema.stream_tags, ["stream_id"], [schema.stream_tags.c.tag == tag]):
            tagged.update(stream_ids)
        return tagged

    def process_values(
        self, columns: Sequence[str], *, process_id: str | None, update_begin: int | None, update_end: int | None
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Some columns (at least one) of `ProcessRow` of the processes that `process_rows` would give, in parts and in
        no order; a part has a sequence of values per column.

        Properties leave as JSON texts. Holds a read transaction until exhausted or closed.
        """
        conditions = _updated(schema.processes, {"process_id": process_id}, update_begin, update_end)
        return self._values(schema.processes, columns, conditions)

    def stream_values(
        self,
        columns: Sequence[str],
        *,
        stream_id: str | None,
        process_id: str | None,
        update_begin: int | None,
        update_end: int | None,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Some columns of `StreamRow`, as `process_values`; tags leave as JSON texts, too."""
        ids = {"stream_id": stream_id, "process_id": process_id}
        return self._values(schema.streams, columns, _updated(schema.streams, ids, update_begin, update_end))

    def count_processes(self) -> int:
        """How many processes are known."""
        return self._count(schema.processes)

    def count_streams(self) -> int:
        """How many streams are known."""
        return self._count(schema.streams)

    def _count(self, table: sa.Table) -> int:
        with self._database.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    def _values(
        self, table: sa.Table, columns: Sequence[str], conditions: list[sa.ColumnElement[bool]]
    ) -> Iterator[Sequence[Sequence[Any]]]:
        # The texts as stored spare parsing and printing them again for every row.
        as_texts: tuple[type[sa.types.TypeEngine[Any]], ...] = (sa.JSON,)
        if self._database.is_postgres:
            as_texts += (sa.String, sa.Uuid)
        selected = [
            sa.cast(table.c[name], sa.Text).label(name) if isinstance(table.c[name].type, as_texts) else table.c[name]
            for name in columns
        ]
        with self._database.read() as connection:
            for rows in driver_rows(connection, sa.select(*selected).where(*conditions), _ROWS_PER_PART):
                # Not by zip(): an iterator for each row wakes the garbage collector, which takes longer than all else.
                yield [[row[place] for row in rows] for place in range(len(columns))]


def _updated(
    table: sa.Table, ids: dict[str, str | None], update_begin: int | None, update_end: int | None
) -> list[sa.ColumnElement[bool]]:
    """Rows of these ids (None: any) inserted by `update_end` and updated since `update_begin`."""
    conditions: list[sa.ColumnElement[bool]] = [
        table.c[name] == value for name, value in ids.items() if value is not None
    ]
    if update_begin is not None:
        conditions.append(table.c.last_update_time >= update_begin)
    if update_end is not None:
        conditions.append(table.c.insert_time <= update_end)
    return conditions
