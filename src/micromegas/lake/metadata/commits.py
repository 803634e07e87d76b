"""Writing what was ingested: one transaction per batch, in which everything gets the same insert time.

It must never change a row that exists (the first version of an id wins), and never stamp a block whose stream or
process is unknown: such a block is pending until the announcement comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from micromegas.lake.metadata import schema, statements
from micromegas.lake.metadata.block_times import ArrivingBlock, BlockTimes, EventTimes
from micromegas.lake.metadata.part import chunks
from micromegas.lake.metadata.prepared_read import PreparedRead
from micromegas.wire import Block, Process, Stream

TEXT_LIMIT = 255
TAGS_TO_SELECT_BY = 64
"""Senders have one tag; more than this, or a tag over the text limit, is kept but can't be selected by."""

PLACED_COLUMNS = [
    "block_id",
    "stream_id",
    "process_id",
    "begin_time",
    "begin_ticks",
    "end_time",
    "end_ticks",
    "nb_objects",
    "object_offset",
    "payload_size",
    "object_key",
    "payload_offset",
    "min_event_time",
    "max_event_time",
]
STAMPED_COLUMNS = ["block_id", "stream_id", "process_id", "begin_ticks", "end_ticks", "begin_time", "end_time"]
WATERMARK = PreparedRead(sa.select(schema.commit_clock.c.last))
UPDATE_PROCESSES = sa.text(statements.UPDATE_PROCESSES)
UPDATE_STREAMS = sa.text(statements.UPDATE_STREAMS)


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A block and the place of its payload: object key and offset in bytes."""

    block: Block
    object_key: str
    payload_offset: int


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """What a commit did: its insert time (ns), and which of the given objects no row points to."""

    insert_time: int
    unreferenced_keys: frozenset[str]


def _clean(text: str) -> str:
    """A text as the databases can keep it: PostgreSQL refuses U+0000."""
    return text.replace("\0", "") if "\0" in text else text


def _short(text: str) -> str:
    return _clean(text)[:TEXT_LIMIT]


def _clean_properties(properties: dict[str, str]) -> dict[str, str]:
    return {_clean(key): _clean(value) for key, value in properties.items()}


class Commits(BlockTimes):
    """The writing half of ingestion."""

    def watermark(self) -> int:
        """Insert time (ns) of the newest commit: every block up to it can be seen, now and for ever; 0 when empty."""
        ((last,),) = self._database.rows(WATERMARK, {})
        return int(last)

    def known_block_ids(self, block_ids: Sequence[str]) -> set[str]:
        """Those of the ids whose blocks are stored already."""
        if not block_ids:
            return set()
        with self._database.read() as connection:
            if self._database.is_postgres:
                rows = connection.exec_driver_sql(statements.KNOWN_BLOCKS_POSTGRES, {"ids": list(block_ids)})
            else:
                rows = connection.exec_driver_sql(statements.KNOWN_BLOCKS_SQLITE, (json.dumps(list(block_ids)),))
            return {row[0] for row in rows}

    def insert_batch(
        self,
        processes: Sequence[Process],
        streams: Sequence[Stream],
        placed: Sequence[PlacedBlock],
        before_commit: Callable[[], None] = lambda: None,
    ) -> CommitOutcome:
        """Insert a batch in one transaction; `before_commit` may veto it by raising.

        Ids that exist already are left as they are. An object whose every block turned out to exist is reported back.
        """
        with self._database.write() as connection:
            insert_time = self._advance_commit_clock(connection)
            new_processes = self._insert_processes(connection, processes, insert_time)
            new_streams = self._insert_streams(connection, streams, insert_time)
            stamped: list[ArrivingBlock] = []
            if new_processes:
                stamped += self._stamp_pending(connection, schema.blocks.c.process_id, new_processes, insert_time)
            if new_streams:
                stamped += self._stamp_pending(connection, schema.blocks.c.stream_id, new_streams, insert_time)
            times = self._event_times(connection, [*(each.block for each in placed), *stamped])
            self._set_event_times(connection, stamped, times)
            inserted = self._insert_blocks(connection, placed, times, insert_time)
            if inserted or new_processes or new_streams:
                connection.execute(UPDATE_PROCESSES, {"insert_time": insert_time})
                connection.execute(UPDATE_STREAMS, {"insert_time": insert_time})
            unreferenced: set[str] = set()
            if inserted < len(placed):
                keys = {block.object_key for block in placed}
                unreferenced = keys - self._referenced(connection, keys)
            before_commit()
        return CommitOutcome(insert_time, frozenset(unreferenced))

    def referenced_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of the object keys that a block's row points to."""
        with self._database.read() as connection:
            return self._referenced(connection, set(keys))

    def _referenced(self, connection: sa.Connection, keys: set[str]) -> set[str]:
        column = schema.blocks.c.object_key
        found: set[str] = set()
        for chunk in chunks(sorted(keys)):
            found.update(connection.execute(sa.select(column).where(column.in_(chunk)).distinct()).scalars())
        return found

    def _insert_processes(self, connection: sa.Connection, processes: Sequence[Process], insert_time: int) -> list[str]:
        rows: dict[str, dict[str, Any]] = {}
        for process in processes:
            rows.setdefault(
                process.process_id,
                {
                    "process_id": process.process_id,
                    "exe": _short(process.exe),
                    "username": _short(process.username),
                    "realname": _short(process.realname),
                    "computer": _short(process.computer),
                    "distro": _short(process.distro),
                    "cpu_brand": _short(process.cpu_brand),
                    "tsc_frequency": process.tsc_frequency,
                    "start_time": process.start_time,
                    "start_ticks": process.start_ticks,
                    "insert_time": insert_time,
                    "parent_process_id": process.parent_process_id,
                    "properties": _clean_properties(process.properties),
                    "last_update_time": insert_time,
                },
            )
        return self._insert_new(connection, schema.processes, schema.processes.c.process_id, list(rows.values()))

    def _insert_streams(self, connection: sa.Connection, streams: Sequence[Stream], insert_time: int) -> list[str]:
        rows: dict[str, dict[str, Any]] = {}
        for stream in streams:
            rows.setdefault(
                stream.stream_id,
                {
                    "stream_id": stream.stream_id,
                    "process_id": stream.process_id,
                    "dependencies_metadata": stream.dependencies_metadata,
                    "objects_metadata": stream.objects_metadata,
                    "tags": [_clean(tag) for tag in stream.tags],
                    "properties": _clean_properties(stream.properties),
                    "insert_time": insert_time,
                    "format": _clean(stream.format),
                    "last_update_time": insert_time,
                },
            )
        new = self._insert_new(connection, schema.streams, schema.streams.c.stream_id, list(rows.values()))
        tags = [
            {"stream_id": stream_id, "tag": tag}
            for stream_id in new
            for tag in dict.fromkeys(rows[stream_id]["tags"][:TAGS_TO_SELECT_BY])
            if len(tag) <= TEXT_LIMIT
        ]
        if tags:
            connection.execute(self._insert(schema.stream_tags).on_conflict_do_nothing(), tags)
        return new

    def _insert_new(
        self, connection: sa.Connection, table: sa.Table, id_column: sa.Column[str], rows: list[dict[str, Any]]
    ) -> list[str]:
        """Insert the rows whose ids are not there yet; returns their ids."""
        new: list[str] = []
        for chunk in chunks(rows):
            ids = [row[id_column.name] for row in chunk]
            known = set(connection.execute(sa.select(id_column).where(id_column.in_(ids))).scalars())
            fresh = [row for row in chunk if row[id_column.name] not in known]
            if fresh:
                # The commit clock's lock keeps every other writer of these tables out.
                connection.execute(sa.insert(table), fresh)
                new.extend(row[id_column.name] for row in fresh)
        return new

    def _insert_blocks(
        self,
        connection: sa.Connection,
        placed: Sequence[PlacedBlock],
        times: Mapping[str, EventTimes],
        insert_time: int,
    ) -> int:
        """Insert the blocks whose ids are not there yet; returns how many."""
        if not placed:
            return 0
        rows = [
            (
                each.block.block_id,
                each.block.stream_id,
                each.block.process_id,
                each.block.begin_time,
                each.block.begin_ticks,
                each.block.end_time,
                each.block.end_ticks,
                each.block.nb_objects,
                each.block.object_offset,
                len(each.block.payload),
                each.object_key,
                each.payload_offset,
                *times.get(each.block.block_id, (None, None)),
            )
            for each in placed
        ]
        if not self._database.is_postgres:
            sqlite_rows = [(*row, insert_time) for row in rows]
            return connection.exec_driver_sql(statements.INSERT_BLOCK_SQLITE, sqlite_rows).rowcount
        columns: dict[str, Any] = {
            name: list(values) for name, values in zip(PLACED_COLUMNS, zip(*rows, strict=True), strict=True)
        }
        columns["received"] = insert_time
        return connection.exec_driver_sql(statements.INSERT_BLOCKS_POSTGRES, columns).rowcount

    def _stamp_pending(
        self, connection: sa.Connection, column: sa.Column[str], announced: Sequence[str], insert_time: int
    ) -> list[ArrivingBlock]:
        """Make visible the blocks that were only waiting for one of the ids announced in this transaction."""
        blocks = schema.blocks
        stream_known = sa.exists().where(schema.streams.c.stream_id == blocks.c.stream_id)
        process_known = sa.exists().where(schema.processes.c.process_id == blocks.c.process_id)
        stamped: list[Any] = []
        for chunk in chunks(announced):
            stamped += connection.execute(
                sa.update(blocks)
                .where(column.in_(chunk), blocks.c.insert_time.is_(None), stream_known, process_known)
                .values(insert_time=insert_time)
                .returning(*(blocks.c[name] for name in STAMPED_COLUMNS))
            )
        return stamped

    def _set_event_times(
        self, connection: sa.Connection, stamped: Sequence[ArrivingBlock], times: Mapping[str, EventTimes]
    ) -> None:
        """Note the event times of blocks that became visible."""
        known = [(block.block_id, *times[block.block_id]) for block in stamped if block.block_id in times]
        if known:
            blocks = schema.blocks.c
            connection.execute(
                sa.update(schema.blocks)
                .where(blocks.block_id == sa.bindparam("id"))
                .values(min_event_time=sa.bindparam("earliest"), max_event_time=sa.bindparam("latest")),
                [{"id": block_id, "earliest": earliest, "latest": latest} for block_id, earliest, latest in known],
            )
