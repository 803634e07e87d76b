"""A lake of before there were clocks in it: its blocks get the times of their events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from senders import block, process, stream

from micromegas.config import LakeSettings
from micromegas.lake import Lake, ProcessClock, clock_of
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.database import open_database
from micromegas.lake.metadata.migration import MIGRATIONS
from micromegas.wire import Batch

BEFORE = "0008"
START = 1_750_000_000_000_000_000
SECOND = 1_000_000_000


def test_old_blocks_get_event_times(lake_backend: LakeSettings) -> None:
    known = process(start_time=START, tsc_frequency=1000)
    owners = [known, *(process(start_time=START, tsc_frequency=number) for number in (0, -1, 0, 0))]
    streams = [stream(owner.process_id) for owner in owners]
    otlp = stream(known.process_id, format="otlp/v1/logs")
    made = [
        block(each, begin_ticks=500, end_ticks=2000, begin_time=START, end_time=START + SECOND) for each in streams[:2]
    ]
    made.append(block(streams[2], begin_ticks=5, end_ticks=0, end_time=START))
    # Only the block itself tells how fast the counter is, and one is so wide that its ticks can't be subtracted.
    set_back = START - 3600 * SECOND
    made.append(block(streams[3], begin_ticks=500, end_ticks=2500, begin_time=set_back, end_time=set_back + SECOND))
    made.append(block(streams[4], begin_ticks=2**63 - 1, end_ticks=-(2**63), begin_time=START, end_time=START))
    made.append(block(otlp, begin_ticks=START + 7, end_ticks=START + 9))
    pending = block(stream(known.process_id))
    database = open_database(lake_backend)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.migration() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    with database.write() as connection:
        for owner, newest in zip(owners, made, strict=False):
            row = {name: getattr(owner, name) for name in owner.__dataclass_fields__}
            row |= {"insert_time": 1, "last_update_time": 1, "last_block_end_time": newest.end_time}
            connection.execute(sa.insert(schema.processes).values(row | {"last_block_end_ticks": newest.end_ticks}))
            connection.execute(
                sa.text("UPDATE processes SET clock_end_time = :time WHERE process_id = :id"),
                {"time": newest.end_time, "id": owner.process_id},
            )
        for each in (*streams, otlp):
            row = {name: getattr(each, name) for name in each.__dataclass_fields__}
            connection.execute(sa.insert(schema.streams).values(row | {"insert_time": 1, "last_update_time": 1}))
        for each in (*made, pending):
            row = {name: getattr(each, name) for name in each.__dataclass_fields__ if name != "payload"}
            row |= {"payload_size": 0, "payload_offset": 0, "insert_time": None if each is pending else 1}
            connection.execute(sa.insert(schema.blocks).values(row | {"received": 1}))
    database.close()
    with Lake.open(lake_backend) as lake:
        found = {row.block_id: (row.min_event_time, row.max_event_time) for row in lake.metadata.blocks()}
        half = SECOND // 2
        assert found == dict(
            zip(
                (each.block_id for each in made),
                [
                    (START + half, START + 2 * SECOND),
                    (START + half // 2, START + SECOND),
                    (START, START + 5),
                    (START + SECOND // 4, START + SECOND * 5 // 4),
                    (None, None),
                    (START + 7, START + 9),
                ],
                strict=True,
            )
        )
        rows = lake.metadata.processes(owner.process_id for owner in owners)
        clocks = [clock_of(rows[owner.process_id]) for owner in owners]
        assert clocks == [*(ProcessClock(START, frequency) for frequency in (1000, 2000, SECOND, 2000)), None]
        # and go on
        lake.commit(Batch(blocks=[block(streams[1], begin_ticks=2000, end_ticks=8000, end_time=START + 4 * SECOND)]))
        assert clock_of(lake.metadata.processes([owners[1].process_id])[owners[1].process_id]) == clocks[1]
