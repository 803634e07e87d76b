"""An engine that remembers partitions answers with those that there are, whoever changed them since its last query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from query.asking import ask, column, one
from query.traffic import MadeTraffic, materialize

from micromegas.config import LakeSettings
from micromegas.lake import Lake, Partition
from micromegas.lake.metadata import schema
from micromegas.query import QueryEngine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.partition_writer import InsertRange, PartitionSlot, build_partition
from micromegas.views.view_set import GLOBAL_INSTANCE

COUNT = "SELECT count(*) FROM log_entries"


@pytest.fixture
def other(lake_backend: LakeSettings, lake: Lake) -> Iterator[Lake]:
    """The lake as another server has it open."""
    with Lake.open(lake_backend) as opened:
        yield opened


@contextmanager
def counted_looks(lake: Lake) -> Iterator[list[None]]:
    """One item for each time that somebody took a connection of the metadata database."""
    looks: list[None] = []

    def count(*_arguments: Any) -> None:
        looks.append(None)

    pool = lake.metadata._database.engine.pool
    sa.event.listen(pool, "checkout", count)
    try:
        yield looks
    finally:
        sa.event.remove(pool, "checkout", count)


def again(lake: Lake, partition: Partition) -> Partition:
    """The partition made once more of the same blocks; its old file is gone at once, without any grace."""
    assert partition.file_path is not None
    slot = PartitionSlot(
        LOG_ENTRIES,
        GLOBAL_INSTANCE,
        InsertRange(partition.begin_insert_time, partition.end_insert_time),
        frozenset({partition.partition_id}),
    )
    blocks = lake.metadata.blocks(
        tag="log", insert_begin=partition.begin_insert_time, insert_end=partition.end_insert_time
    )
    made = build_partition(lake, slot, blocks)
    lake.objects.delete([partition.file_path])
    return made


def test_what_another_server_acknowledged_is_in_the_answer(engine: QueryEngine, other: Lake) -> None:
    traffic = MadeTraffic(other)
    for count in range(1, 9):
        traffic.logs(f"{count}")
        if count % 3 == 0:
            materialize(other, LOG_ENTRIES)
        assert one(ask(engine, COUNT)) == count


def test_partitions_written_regenerated_and_retired_by_another_server(engine: QueryEngine, other: Lake) -> None:
    traffic = MadeTraffic(other)
    for number in range(4):
        traffic.logs(f"{number}")
    assert one(ask(engine, COUNT)) == 4
    written = materialize(other, LOG_ENTRIES, pieces=2)
    assert one(ask(engine, COUNT)) == 4
    first = again(other, written[0])
    assert one(ask(engine, COUNT)) == 4, "the file of the partition that it remembers is gone"
    again(other, again(other, first))
    assert one(ask(engine, COUNT)) == 4
    retired = other.metadata.retire_partitions_within("log_entries", "global", 0, written[0].end_insert_time)
    other.objects.delete([path for each in retired if (path := each.file_path) is not None])
    assert sorted(column(ask(engine, "SELECT msg FROM log_entries"))) == ["0", "1", "2", "3"], "from its blocks again"
    materialize(other, LOG_ENTRIES)
    assert one(ask(engine, COUNT)) == 4


def test_a_database_that_was_restored_from_a_copy(engine: QueryEngine, other: Lake) -> None:
    """Its versions are smaller than those that the engine knows."""
    traffic = MadeTraffic(other)
    traffic.logs("a")
    written = materialize(other, LOG_ENTRIES)[0]
    for _ in range(3):
        written = again(other, written)
        assert one(ask(engine, COUNT)) == 1
    with other.metadata._database.write() as connection:
        connection.execute(sa.delete(schema.partitions))
        connection.execute(sa.delete(schema.partition_changes).where(schema.partition_changes.c.version > 1))
    assert one(ask(engine, COUNT)) == 1


def test_the_metadata_is_asked_once(lake: Lake, engine: QueryEngine, other: Lake) -> None:
    """As long as no partition changes; each statement is a round trip, with PostgreSQL to another machine."""
    traffic = MadeTraffic(other)
    traffic.logs("a")
    written = materialize(other, LOG_ENTRIES)[0]
    traffic.logs("b")
    assert one(ask(engine, COUNT)) == 2
    with counted_looks(lake) as looks:
        assert one(ask(engine, COUNT)) == 2
    assert len(looks) == 1
    again(other, written)
    with counted_looks(lake) as looks:
        assert one(ask(engine, COUNT)) == 2
    assert len(looks) == 3, "that there are changes, which, and the blocks that these leave"
