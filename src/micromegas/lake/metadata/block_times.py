"""When the events of blocks that become visible were, by the clocks of their processes, which are kept here.

It must never read payloads, nor let a block change what time it was in one before it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from micromegas.lake.metadata import schema, statements
from micromegas.lake.metadata.part import MetadataPart
from micromegas.lake.process_clock import MeasuredClock, ProcessClock, TimedBlock
from micromegas.wire import NATIVE_FORMATS, OTLP_FORMATS

EventTimes = tuple[int, int]
"""Earliest and latest (ns since the epoch)."""


class ArrivingBlock(TimedBlock, Protocol):
    """A block that this transaction inserts, or makes visible; as in `Block`."""

    @property
    def block_id(self) -> str: ...
    @property
    def stream_id(self) -> str: ...
    @property
    def process_id(self) -> str: ...


class BlockTimes(MetadataPart):
    """Part of a commit."""

    def _event_times(self, connection: sa.Connection, blocks: Sequence[ArrivingBlock]) -> dict[str, EventTimes]:
        """By id, between which times the events of the blocks are. A block is absent when its stream or process is not
        known yet, its format isn't, or nothing tells the frequency of its process. Stores what the blocks tell about
        clocks."""
        formats = self._rows_of(connection, statements.STREAM_FORMATS, [block.stream_id for block in blocks])
        format_of = {row[0]: row[1] for row in formats}
        by_process: defaultdict[str, list[ArrivingBlock]] = defaultdict(list)
        times: dict[str, EventTimes] = {}
        for block in blocks:
            stream_format = format_of.get(block.stream_id)
            if stream_format in NATIVE_FORMATS:
                by_process[block.process_id].append(block)
            elif stream_format in OTLP_FORMATS.values():
                ends = (block.begin_ticks, block.end_ticks)
                times[block.block_id] = (min(ends), max(ends))
        for row in self._rows_of(connection, statements.PROCESS_CLOCKS, list(by_process)):
            process_id, start_time, frequency, visible_ticks, stored = row
            of_process = by_process[process_id]
            if frequency > 0:
                clock = ProcessClock(start_time, frequency)
            else:
                before = None if stored is None else MeasuredClock.from_json(start_time, json.loads(stored))
                if before is None or visible_ticks is None:
                    measured = MeasuredClock.first(start_time, of_process)
                else:
                    measured = before.measured(of_process, visible_ticks)
                if measured is None:
                    continue
                if measured != before:
                    self._store_clock(connection, process_id, measured)
                clock = measured.clock
            times.update((block.block_id, clock.event_times(block)) for block in of_process)
        return times

    def _rows_of(self, connection: sa.Connection, statement: tuple[str, str], ids: Sequence[str]) -> Sequence[Any]:
        """The rows that a statement (for SQLite, for PostgreSQL) finds for ids."""
        if not ids:
            return []
        distinct = list(dict.fromkeys(ids))
        if self._database.is_postgres:
            return connection.exec_driver_sql(statement[1], {"ids": distinct}).all()
        return connection.exec_driver_sql(statement[0], (json.dumps(distinct),)).all()

    def _store_clock(self, connection: sa.Connection, process_id: str, clock: MeasuredClock) -> None:
        processes = schema.processes
        connection.execute(
            sa.update(processes).where(processes.c.process_id == process_id).values(clock=clock.as_json())
        )
