"""Partitions of older schemas: written anew a few at a time, where a decoder failed first, and never twice."""

from __future__ import annotations

import pytest
from daemon.telemetry import HandClock, Telemetry, always
from older_views import CHANGED, write_as_before

from micromegas.config import LakeSettings
from micromegas.daemon import older_partitions
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import DAY
from micromegas.daemon.older_partitions import MAX_REWRITES, OlderPartitions
from micromegas.lake import BlockRow, Lake, Partition
from micromegas.views.log_entries import LOG_ENTRIES


def partitions_of(lake: Lake, instance_id: str = "global") -> list[Partition]:
    return lake.metadata.partitions("log_entries", instance_id)


def log_blocks(lake: Lake) -> list[BlockRow]:
    return lake.metadata.blocks(tag="log")


def test_where_a_decoder_failed_comes_first_and_its_blocks_are_had(lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(6):
        telemetry.send_logs()
    blocks = log_blocks(lake)
    for place, block in enumerate(blocks):
        write_as_before(lake, [block], failed=[block] if place == 1 else [])
    assert [error.block_id for error in lake.metadata.block_errors()] == [blocks[1].block_id]
    older = OlderPartitions(lake, [CHANGED])
    rewritten: list[int] = []
    for _ in range(4):
        assert older.rewrite(always) == 0
        current = [each.schema_hash == CHANGED.schema_hash for each in partitions_of(lake)]
        rewritten.append(sum(current))
        assert current[1]
    assert rewritten == [MAX_REWRITES, 2 * MAX_REWRITES, 6, 6]
    assert lake.metadata.block_errors() == []
    assert [each.num_rows for each in partitions_of(lake)] == [3] * 6
    assert sum(each.failed_blocks for each in partitions_of(lake)) == 0


def test_what_still_can_not_be_decoded_is_tried_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    broken = telemetry.send_broken_logs()
    blocks = log_blocks(lake)
    write_as_before(lake, blocks, failed=blocks[1:])
    write_as_before(lake, blocks, telemetry.process_id, failed=blocks[1:])
    builds = []
    build = older_partitions.build_partition
    monkeypatch.setattr(older_partitions, "build_partition", lambda *given: builds.append(given) or build(*given))
    for _ in range(3):
        assert OlderPartitions(lake, [CHANGED]).rewrite(always) == 0
    assert len(builds) == 2
    for instance_id in ("global", telemetry.process_id):
        (partition,) = partitions_of(lake, instance_id)
        assert (partition.schema_hash, partition.failed_blocks) == (CHANGED.schema_hash, 1)
    (error,) = lake.metadata.block_errors()
    assert (error.block_id, error.decoder_version) == (broken.block_id, 1)


def test_rows_that_outlive_their_blocks_stay(lake: Lake) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(3):
        telemetry.send_logs()
    for block in log_blocks(lake):
        write_as_before(lake, [block])
    lake.delete_blocks_before(log_blocks(lake)[2].insert_time)
    before = partitions_of(lake)
    older = OlderPartitions(lake, [CHANGED])
    for _ in range(3):
        assert older.rewrite(always) == 0
    after = partitions_of(lake)
    assert after[:2] == before[:2]
    assert after[2].schema_hash == CHANGED.schema_hash
    assert OlderPartitions(lake, [CHANGED]).rewrite(always) == 0
    assert partitions_of(lake) == after


def test_the_daemon_leaves_readable_partitions_to_that(lake_backend: LakeSettings) -> None:
    clock = HandClock()
    with Lake.open(lake_backend, clock) as lake:
        telemetry = Telemetry(lake, 1)
        telemetry.send_logs()
        old = write_as_before(lake, log_blocks(lake))
        clock.now += DAY
        assert FreshPartitions(lake, CHANGED, clock).cover(0, always) == 0
        assert old in partitions_of(lake)
        assert OlderPartitions(lake, [LOG_ENTRIES]).rewrite(always) == 0
        assert old in partitions_of(lake)
        # A release that doesn't know the schema makes it again at once.
        assert FreshPartitions(lake, LOG_ENTRIES, clock).cover(0, always) == 0
        (made,) = [each for each in partitions_of(lake) if each.num_rows]
        assert made.schema_hash == LOG_ENTRIES.schema_hash
