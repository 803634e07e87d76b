"""log_stats, whatever of it is in partitions: always the GROUP BY over log_entries, counted in plain Python."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from daemon.log_minutes import (
    GROUPED,
    TARGETS,
    LogMinutes,
    asked,
    counted,
    keep_logs,
    keep_stats,
    kept,
    random_events,
)
from daemon.telemetry import MIDNIGHT, HandClock, always, global_partitions
from e2e.made_traffic import LOG_DEPENDENCIES, START_TIME, MadeProcess, block_request, log_event
from query.asking import ask, one

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.insert_clock import DAY, HOUR, MINUTE, SECOND
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.reduced_partitions import ReducedPartitions, idle_end
from micromegas.lake import Lake, new_partition_id
from micromegas.query import QueryEngine, Reductions
from micromegas.query.build_leases import BuildLeases
from micromegas.views.coverage import uncovered
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.views.partition_writer import InsertRange
from micromegas.views.view_set import ViewSet
from micromegas.wire import Batch, Block, Process, Stream

HOURS = TIERS[1]


def check_partitions(lake: Lake) -> None:
    """None overlaps another, and each is of whole minutes within a day."""
    partitions = sorted(global_partitions(lake, LOG_STATS), key=lambda each: each.begin_insert_time)
    for before, after in itertools.pairwise(partitions):
        assert before.end_insert_time <= after.begin_insert_time
    for each in partitions:
        assert each.begin_insert_time % MINUTE == each.end_insert_time % MINUTE == 0


def check_equal(engine: QueryEngine, processes: list[LogMinutes], random: Random) -> None:
    """By all ways of asking for a range of minutes."""
    assert asked(engine) == counted(processes) == asked(engine, GROUPED)
    first, last = sorted(random.choices(range(6), k=2))
    begin, end = START_TIME + first * MINUTE, START_TIME + last * MINUTE
    expected = counted(processes, range(first, last + 1))
    assert asked(engine, begin=begin, end=end) == expected
    of_range = f"SELECT * FROM log_stats WHERE time_bin >= arrow_cast({begin}, 'Timestamp(ns)') AND time_bin <= {end}"
    assert asked(engine, of_range.replace(f"<= {end}", f"<= arrow_cast({end}, 'Timestamp(ns)')")) == expected
    of_one = f"SELECT * FROM log_stats WHERE process_id = '{processes[0].process_id}'"
    assert asked(engine, of_one) == counted(processes[:1])


@pytest.mark.parametrize("seed", range(4))
def test_log_stats_are_the_groups_of_log_entries_in_any_state(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    clock = HandClock()
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake"), clock) as lake:
        engine = QueryEngine(lake, QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0))
        try:
            processes = [LogMinutes(lake, 10 * seed + number) for number in range(2)]
            steps = [
                lambda: random.choice(processes).send(random_events(random, random.randrange(1, 5))),
                lambda: random.choice(processes).send(random_events(random, random.randrange(1, 5))),
                lambda: keep_logs(lake, clock),
                lambda: keep_stats(lake, engine, clock),
                lambda: retire_some(lake, random),
            ]
            for _ in range(24):
                random.choice(steps)()
                clock.now += random.choice([0, SECOND, 40 * SECOND, 7 * MINUTE, HOUR, 9 * HOUR])
                if random.random() < 0.5:
                    check_equal(engine, processes, random)
            clock.now += DAY + HOUR
            keep_logs(lake, clock)
            keep_stats(lake, engine, clock)
            check_partitions(lake)
            check_equal(engine, processes, random)
            check_covered(lake)
        finally:
            engine.close()


def retire_some(lake: Lake, random: Random) -> None:
    """An administrator takes partitions away, of either view."""
    view_set = random.choice([LOG_STATS, LOG_ENTRIES])
    for partition in global_partitions(lake, view_set):
        if random.random() < 0.3:
            lake.metadata.replace_partitions(view_set.name, "global", frozenset({partition.partition_id}), None)


def check_covered(lake: Lake) -> None:
    """Nothing is left that would have to be counted anew."""
    gaps = uncovered(global_partitions(lake, LOG_STATS), 0, MIDNIGHT + 10 * DAY)
    assert not [gap for gap in gaps if lake.metadata.blocks(insert_begin=gap.begin, insert_end=gap.end)]
    assert sum(each.num_rows for each in global_partitions(lake, LOG_STATS)) > 0


def test_idle_time_is_covered_in_a_few_pieces_that_fit_into_hours_and_days() -> None:
    random = Random(1)
    for _ in range(300):
        begin = MIDNIGHT + random.randrange(3 * 1440) * MINUTE
        first = begin + random.choice([0, random.randrange(90), random.randrange(4 * 1440)]) * MINUTE
        pieces = 0
        while (end := idle_end(begin, first)) > begin:
            assert end <= first
            if begin // DAY != (end - 1) // DAY:
                assert begin % DAY == end % DAY == 0
            elif begin // HOUR != (end - 1) // HOUR:
                assert begin % HOUR == end % HOUR == 0
            begin, pieces = end, pieces + 1
        assert pieces <= 4
        # The rest is covered together with the minute in which something comes.
        assert begin // HOUR == first // HOUR


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = QueryEngine(lake, QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0))
    yield opened
    opened.close()


def test_minutes_become_hours_and_days(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    random = Random(1)
    for number in range(4):
        process.send(random_events(random, 4))
        clock.now = MIDNIGHT + number * MINUTE + 50 * SECOND
        keep_logs(lake, clock)
        keep_stats(lake, engine, clock)
        assert asked(engine) == counted([process])
    # Nearly four minutes after midnight three are over; of the fourth nothing is kept.
    minutes = [(each.begin_insert_time, each.end_insert_time) for each in global_partitions(lake, LOG_STATS)]
    assert minutes == [(MIDNIGHT + number * MINUTE, MIDNIGHT + (number + 1) * MINUTE) for number in range(3)]
    clock.now += HOUR
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (hour,) = global_partitions(lake, LOG_STATS)
    assert (hour.begin_insert_time, hour.end_insert_time) == (MIDNIGHT, MIDNIGHT + HOUR)
    process.send(random_events(random, 4))
    assert asked(engine) == counted([process])
    clock.now += DAY
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (day,) = global_partitions(lake, LOG_STATS)
    assert (day.begin_insert_time, day.end_insert_time) == (MIDNIGHT, MIDNIGHT + DAY)
    assert day.num_rows == len(counted([process]))
    assert asked(engine) == counted([process])
    listed = ask(engine, "SELECT num_rows FROM list_partitions() WHERE view_set_name = 'log_stats'")
    assert one(listed) == day.num_rows


def test_several_daemons_count_nothing_twice(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    random = Random(2)
    for _ in range(6):
        process.send(random_events(random, 5))
        clock.now += 40 * SECOND
    clock.now += HOUR
    keep_logs(lake, clock)

    def work() -> None:
        keeper = kept(lake, engine, clock)
        assert keeper.cover(MIDNIGHT, always) == 0
        assert keeper.merge(HOURS, always) == 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(engine) == counted([process])
    check_partitions(lake)
    check_covered(lake)


def test_daemons_part_the_pieces_among_them(
    lake: Lake, engine: QueryEngine, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = LogMinutes(lake)
    random = Random(5)
    for _ in range(8):
        process.send(random_events(random, 3))
        clock.now += 2 * HOUR
    keep_logs(lake, clock)
    made: list[tuple[int, int]] = []
    all_at_once = threading.Barrier(3)
    reduce = Reductions.reduce

    def counted_reduce(self: Reductions, view_set: ViewSet, insert_range: InsertRange, *others: Any) -> None:
        made.append((insert_range.begin, insert_range.end))
        with contextlib.suppress(threading.BrokenBarrierError):
            # Each of the three is at work when the first is through: none waits for another.
            all_at_once.wait(20)
        reduce(self, view_set, insert_range, *others)

    monkeypatch.setattr(Reductions, "reduce", counted_reduce)

    def work() -> None:
        leases = BuildLeases(lake, 60)
        assert ReducedPartitions(lake, LOG_STATS, engine.reductions, clock, leases).cover(MIDNIGHT, always) == 0
        all_at_once.abort()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) >= 8
    assert asked(engine) == counted([process])
    check_partitions(lake)
    check_covered(lake)


def test_a_piece_that_another_daemon_is_at_is_left_to_it(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    for hour in range(2):
        process.send([(hour, 4, "shop::orders")])
        clock.now += HOUR
    keep_logs(lake, clock)
    keeper = ReducedPartitions(lake, LOG_STATS, engine.reductions, clock, BuildLeases(lake, 60))
    other = BuildLeases(lake, 60)
    claim = other.take(f"log_stats/global/{MIDNIGHT}")
    assert claim is not None
    assert keeper.cover(MIDNIGHT, always) == 0
    begins = [each.begin_insert_time for each in global_partitions(lake, LOG_STATS)]
    assert begins
    assert MIDNIGHT not in begins
    assert asked(engine) == counted([process])
    other.give_back(claim, used_up=False)
    assert keeper.cover(MIDNIGHT, always) == 0
    assert MIDNIGHT in [each.begin_insert_time for each in global_partitions(lake, LOG_STATS)]


def test_what_the_sources_lack_waits_for_them(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    process.send([(0, 4, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_stats(lake, engine, clock)
    assert global_partitions(lake, LOG_STATS) == []
    assert asked(engine) == counted([process])
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    assert len(global_partitions(lake, LOG_STATS)) == 1


def test_times_that_are_in_no_minute_stop_nothing(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    process.send([(0, 4, TARGETS[0]), (1, 2, TARGETS[1])])
    # Ticks of seconds, and a counter that says the least of all numbers.
    broken = MadeProcess(Random(2), tsc_frequency=1)
    stream = broken.stream("log")
    block = stream.fields(LOG_DEPENDENCIES, log_event("long ago", -(2**63)), 1)
    lake.commit(
        Batch(
            [Process.decode(broken.request().body)],
            [Stream.decode(stream.request().body)],
            [Block.decode(block_request(block).body)],
        )
    )
    assert one(ask(engine, f"SELECT msg FROM log_entries WHERE process_id = '{broken.process_id}'")) == "long ago"
    assert asked(engine) == counted([process])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    assert sum(each.num_rows for each in global_partitions(lake, LOG_STATS)) == 2
    assert asked(engine) == counted([process])


def test_counts_outlive_the_rows_that_were_counted(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    process.send([(0, 4, "shop::orders"), (1, 2, "shop::cache")])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (logs,) = global_partitions(lake, LOG_ENTRIES)
    while lake.delete_blocks_before(clock.now, 100):
        pass
    lake.metadata.replace_partitions("log_entries", "global", frozenset({logs.partition_id}), None)
    assert asked(engine, GROUPED) == Counter()
    assert asked(engine) == counted([process])
    clock.now += 2 * DAY
    keep_stats(lake, engine, clock)
    assert asked(engine) == counted([process])


def test_counts_outlive_their_rows_between_any_number_of_gaps(
    lake: Lake, engine: QueryEngine, clock: HandClock
) -> None:
    gaps = 40
    process = LogMinutes(lake)
    process.send([(0, 4, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (minute,) = global_partitions(lake, LOG_STATS)
    assert minute.file_path is not None
    file = lake.objects.get(minute.file_path)
    # The same counts at other insert times, with nothing between them, and no log that they are of.
    for number in range(1, gaps):
        begin = minute.begin_insert_time - 2 * number * MINUTE
        path = minute.file_path.replace(".parquet", f"-{number}.parquet")
        lake.metadata.add_expiring_object(path, clock.now + DAY)
        lake.objects.put(path, file)
        copy = replace(
            minute,
            begin_insert_time=begin,
            end_insert_time=begin + MINUTE,
            file_path=path,
            partition_id=new_partition_id(),
        )
        lake.metadata.replace_partitions("log_stats", "global", frozenset(), copy)
    process.send([(0, 4, "shop::orders")])
    assert list(asked(engine).values()) == [gaps + 1]


def test_a_new_definition_spares_counts_that_can_t_be_made_again(
    lake: Lake, engine: QueryEngine, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    process = LogMinutes(lake)
    process.send([(0, 4, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (old,) = global_partitions(lake, LOG_STATS)
    older = replace(old, schema_hash=b"another", partition_id=new_partition_id(), file_path=None, num_rows=0)
    lake.metadata.replace_partitions("log_stats", "global", frozenset({old.partition_id}), older)
    while lake.delete_blocks_before(clock.now, 100):
        pass
    later = LogMinutes(lake, 2)
    later.send([(1, 4, "shop::orders")])
    clock.now += 2 * MINUTE
    keep_logs(lake, clock)
    for _ in range(2):
        keep_stats(lake, engine, clock)
    assert older in global_partitions(lake, LOG_STATS)
    # What is there of the rows that were counted is counted, with what came later.
    assert asked(engine) == counted([process, later])
    assert caplog.text.count("retire it to have its insert range") <= 2
    lake.metadata.replace_partitions("log_stats", "global", frozenset({older.partition_id}), None)
    keep_stats(lake, engine, clock)
    assert asked(engine) == counted([process, later])


def test_blocks_that_come_back_are_counted_after_all(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    process = LogMinutes(lake)
    block = process.send([(0, 4, "shop::orders")])
    (row,) = lake.metadata.blocks()
    assert row.block_id == block.block_id
    payload = lake.objects.get(row.object_key)
    lake.objects.delete([row.object_key])
    clock.now += MINUTE
    other = LogMinutes(lake, 2)
    other.send([(1, 2, "shop::cache")])
    clock.now += HOUR
    keep_logs(lake, clock)
    keep_stats(lake, engine, clock)
    (stats,) = global_partitions(lake, LOG_STATS)
    assert stats.failed_blocks == 1
    assert asked(engine) == counted([other])
    keeper = kept(lake, engine, clock)
    assert keeper.mend(always) == 0
    assert global_partitions(lake, LOG_STATS) == [stats]
    # The object is there again, and somebody has the log made anew.
    lake.objects.put(row.object_key, payload)
    (logs,) = global_partitions(lake, LOG_ENTRIES)
    lake.metadata.replace_partitions("log_entries", "global", frozenset({logs.partition_id}), None)
    keep_logs(lake, clock)
    assert keeper.mend(always) == 0
    assert asked(engine) == counted([process, other])
    (stats,) = global_partitions(lake, LOG_STATS)
    assert stats.failed_blocks == 0


def test_explaining_counts_nothing(lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    LogMinutes(lake).send([(0, 4, "shop::orders")])

    def read(*_arguments: object) -> None:
        raise AssertionError("payloads were read")

    monkeypatch.setattr(lake, "read_payloads", read)
    assert "log_entries" in str(ask(engine, "EXPLAIN SELECT * FROM log_stats")["plan"].to_pylist())
