"""Choosing partitions by ranges held in memory gives what a look at all of their rows would give."""

from __future__ import annotations

import threading
from random import Random

import pytest
import sqlalchemy as sa

from micromegas.config import LakeSettings
from micromegas.lake import Lake, Partition, PartitionConflict, PartitionIndex, TooManyPartitions
from micromegas.lake.metadata import schema

HASHES = (b"a", b"b", b"c")
MOMENTS = 60
EVENTS = 100


def made(random: Random, begin: int, end: int) -> Partition:
    low, high = sorted((random.randrange(EVENTS), random.randrange(EVENTS)))
    is_empty = random.random() < 0.2
    return Partition(
        view_set="log_entries",
        instance_id="global",
        begin_insert_time=begin,
        end_insert_time=end,
        min_event_time=None if is_empty else low,
        max_event_time=None if is_empty else high,
        updated=1,
        # No two rows may share a file, and nobody reads it here.
        file_path=None,
        file_size=0,
        num_rows=0,
        schema_hash=random.choice(HASHES),
        source_hash=b"",
    )


def swap(lake: Lake, random: Random) -> None:
    """One change of partitions: a new one in place of all that overlap, or one gone without another."""
    begin = random.randrange(MOMENTS)
    new = made(random, begin, random.randrange(begin, MOMENTS) + 1)
    present = lake.metadata.partitions("log_entries", "global", insert_begin=begin, insert_end=new.end_insert_time)
    if present and random.random() < 0.3:
        lake.metadata.replace_partitions("log_entries", "global", frozenset({present[0].partition_id}), None)
    else:
        ids = frozenset(each.partition_id for each in present)
        lake.metadata.replace_partitions("log_entries", "global", ids, new)


def expected(
    lake: Lake, hashes: set[bytes], begin: int | None, end: int | None, until: int
) -> tuple[list[Partition], list[tuple[int, int]]]:
    """By a plain look at everything, moment by moment."""
    readable = [each for each in lake.metadata.partitions("log_entries", "global") if each.schema_hash in hashes]
    chosen = [
        each
        for each in readable
        if each.min_event_time is not None
        and each.max_event_time is not None
        and (begin is None or each.max_event_time >= begin)
        and (end is None or each.min_event_time <= end)
    ]
    open_moments = [
        moment
        for moment in range(until)
        if not any(each.begin_insert_time <= moment < each.end_insert_time for each in readable)
    ]
    gaps: list[tuple[int, int]] = []
    for moment in open_moments:
        if gaps and gaps[-1][1] == moment:
            gaps[-1] = (gaps[-1][0], moment + 1)
        else:
            gaps.append((moment, moment + 1))
    return chosen, gaps


@pytest.mark.parametrize("seed", range(4))
def test_like_a_look_at_every_row(lake: Lake, seed: int) -> None:
    random = Random(seed)
    index = PartitionIndex(lake.metadata, "log_entries", "global")
    for step in range(60):
        for _ in range(random.randrange(4)):
            swap(lake, random)
        if step % 20 == 19:
            # So long ago that nobody wrote down what changed; and retention, which goes by another way.
            lake.metadata.retire_partitions_before(random.randrange(MOMENTS), 3)
            with lake.metadata._database.write() as connection:
                newest = sa.select(sa.func.max(schema.partition_changes.c.version)).scalar_subquery()
                connection.execute(
                    sa.delete(schema.partition_changes).where(schema.partition_changes.c.version < newest)
                )
        hashes = set(random.sample(HASHES, random.randrange(4)))
        begin = random.choice([None, random.randrange(EVENTS)])
        end = random.choice([None, random.randrange(EVENTS)])
        until = random.randrange(MOMENTS + 10)
        found = index.choose(hashes, event_begin=begin, event_end=end, insert_end=until, max_partitions=1000)
        assert (found.partitions, found.gaps) == expected(lake, hashes, begin, end, until)


def test_changes_of_others_while_looking(lake_backend: LakeSettings, lake: Lake) -> None:
    """Each moment is in a partition chosen or in a gap, never in both, whatever happens at the same time."""
    ended = threading.Event()

    def change(seed: int) -> None:
        random = Random(seed)
        with Lake.open(lake_backend) as other:
            while not ended.is_set():
                try:
                    swap(other, random)
                except PartitionConflict:
                    continue

    changers = [threading.Thread(target=change, args=(seed,)) for seed in range(2)]
    for each in changers:
        each.start()
    index = PartitionIndex(lake.metadata, "log_entries", "global")
    try:
        for _ in range(60):
            try:
                found = index.choose(
                    set(HASHES), event_begin=None, event_end=None, insert_end=MOMENTS, max_partitions=1000
                )
            except PartitionConflict:
                continue
            ranges = [(each.begin_insert_time, each.end_insert_time) for each in found.partitions] + found.gaps
            for before, after in zip(sorted(ranges), sorted(ranges)[1:], strict=False):
                assert before[1] <= after[0], "a moment comes twice"
    finally:
        ended.set()
        for each in changers:
            each.join()
    quiet = index.choose(set(HASHES), event_begin=None, event_end=None, insert_end=MOMENTS, max_partitions=1000)
    assert (quiet.partitions, quiet.gaps) == expected(lake, set(HASHES), None, None, MOMENTS)


def test_too_many_are_told_before_they_are_read(lake: Lake) -> None:
    random = Random(0)
    for begin in range(20):
        lake.metadata.replace_partitions("log_entries", "global", frozenset(), made(random, begin, begin + 1))
    index = PartitionIndex(lake.metadata, "log_entries", "global")
    with pytest.raises(TooManyPartitions) as failure:
        index.choose(set(HASHES), event_begin=None, event_end=None, insert_end=1, max_partitions=3)
    assert failure.value.count > 3
    assert index.choose({b"other"}, event_begin=None, event_end=None, insert_end=7, max_partitions=3).gaps == [(0, 7)]


def test_the_list_of_changes_stays_short(lake: Lake) -> None:
    random = Random(0)
    changes = schema.partition_changes
    with lake.metadata._database.write() as connection:
        connection.execute(
            sa.insert(changes),
            [{"view_set": "log_entries", "version": number, "begin_insert_time": 0} for number in range(1, 10_001)],
        )
    for begin in range(5):
        lake.metadata.replace_partitions("log_entries", "global", frozenset(), made(random, begin, begin + 1))
    with lake.metadata._database.read() as connection:
        versions = connection.execute(sa.select(changes.c.version).order_by(changes.c.version)).scalars().all()
    assert list(versions) == list(range(6, 10_006))
