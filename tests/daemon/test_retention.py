"""Policies of a site: every block is kept exactly as long as the first policy that it meets says, by a model that knows
neither SQL nor the lake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import pytest
from daemon.telemetry import (
    MIDNIGHT,
    HandClock,
    Telemetry,
    always,
    check_lake,
    cover,
    global_partitions,
    needed_objects,
    objects_of,
)
from hypothesis import given
from hypothesis import strategies as st
from query.asking import ask, one
from query.conftest import SETTINGS

from micromegas.config import DaemonSettings, InstancePolicy, RetentionPolicies, StreamPolicy, parse_retention_policies
from micromegas.daemon import retention
from micromegas.daemon.housekeeping import Housekeeping
from micromegas.daemon.insert_clock import DAY, HOUR, SECOND
from micromegas.daemon.retention import DEFAULT, Retention, classified
from micromegas.daemon.selection import PolicyError, Selection
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = QueryEngine(lake, SETTINGS)
    yield opened
    opened.close()


# The decision alone: streams are numbers, predicates name the numbers that they select.

IDS = st.frozensets(st.integers(0, 7).map(str), max_size=8)
POLICIES = st.lists(
    st.builds(
        StreamPolicy,
        name=st.just("some"),
        days=st.integers(1, 5),
        tag=st.sampled_from([None, "cpu", "log"]),
        processes=st.one_of(st.none(), IDS.map(",".join)),
        streams=st.one_of(st.none(), IDS.map(",".join)),
    ),
    max_size=5,
)


@given(POLICIES, st.lists(st.tuples(st.integers(0, 7), st.frozensets(st.sampled_from(["cpu", "log"]))), max_size=8))
def test_the_first_policy_that_a_stream_meets_decides(
    policies: list[StreamPolicy], made: list[tuple[int, frozenset[str]]]
) -> None:
    owners = {str(number): str(process) for number, (process, _) in enumerate(made)}
    tags = {str(number): its for number, (_, its) in enumerate(made)}

    def days_of(stream_id: str) -> int:
        for policy in policies:
            if policy.tag is not None and policy.tag not in tags[stream_id]:
                continue
            if policy.processes is not None and owners[stream_id] not in policy.processes.split(","):
                continue
            if policy.streams is not None and stream_id not in policy.streams.split(","):
                continue
            return policy.days
        return 90

    classes = classified(
        policies,
        90,
        owners,
        lambda tag: [each for each, its in tags.items() if tag in its],
        lambda _table, predicate: frozenset(predicate.split(",")),
    )
    assert [each.policy for each in classes] == ["some"] * len(policies) + [DEFAULT]
    found = [(stream_id, each.days) for each in classes for stream_id in each.stream_ids]
    assert sorted(found) == sorted((stream_id, days_of(stream_id)) for stream_id in owners)


def settings(policies: RetentionPolicies, days: int = 4) -> DaemonSettings:
    return DaemonSettings(retention_days=days, policies=policies)


def keep_house(lake: Lake, engine: QueryEngine, its: DaemonSettings, clock: HandClock) -> int:
    return Housekeeping(lake, its, clock, Selection(engine, its.policies)).run(always)


FILE = """
[[raw]]
name = "measures of the second program"
tag = "metrics"
processes = "exe = 'program 2' -- not of the others"
days = 8

[[raw]]
tag = "metrics"
days = 2

[[raw]]
processes = '''exe IN ('program 3') OR property_get(properties, 'nothing') = 'x' '''
streams = "array_has(tags, 'log')"
days = 1

[[derived]]
view_set = "log_entries"
days = 6
"""


def kept_days(program: int, tag: str) -> int:
    """What the file says, without SQL; the default is 4."""
    if tag == "metrics":
        return 8 if program == 2 else 2
    return 1 if program == 3 else 4


def test_blocks_and_partitions_go_when_their_policies_say(
    lake: Lake, clock: HandClock, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BLOCKS_PER_STEP", 3)
    monkeypatch.setattr(retention, "PARTITIONS_PER_STEP", 2)
    monkeypatch.setattr(retention, "STREAMS_PER_STEP", 2)
    its = settings(parse_retention_policies(FILE))
    random = Random(5)
    # One for all days, which knows what it has looked through.
    house = Housekeeping(lake, its, clock, Selection(engine, its.policies))
    telemetries = {program: Telemetry(lake, program) for program in (1, 2, 3)}
    sent: dict[str, tuple[int, int, str]] = {}
    for day in range(10):
        clock.now = max(clock.now + 1, MIDNIGHT + day * DAY + random.randrange(20) * HOUR)
        for program, telemetry in telemetries.items():
            for send, tag in ((telemetry.send_logs, "log"), (telemetry.send_values, "metrics")):
                block = send()
                sent[block.block_id] = (lake.metadata.watermark(), program, tag)
            clock.now += SECOND
        for view_set in (LOG_ENTRIES, MEASURES):
            cover(lake, view_set, clock)
        before = {
            (row.kind, row.policy): row.expired
            for row in Retention(lake, its, clock, Selection(engine, its.policies)).report()
        }
        blocks_before = lake.metadata.count_blocks()
        assert house.run(always) == 0
        today = MIDNIGHT + day * DAY
        expected = {
            block_id
            for block_id, (insert_time, program, tag) in sent.items()
            if insert_time >= today - kept_days(program, tag) * DAY
        }
        assert {block.block_id for block in lake.metadata.blocks()} == expected
        report = sum(count for (kind, _), count in before.items() if kind == "raw")
        assert report == blocks_before - len(expected), "the dry run tells what is deleted"
        for view_set, days in ((LOG_ENTRIES, 6), (MEASURES, 4)):
            oldest = min(each.end_insert_time for each in global_partitions(lake, view_set))
            assert oldest > today - days * DAY
            assert len(global_partitions(lake, view_set)) == min(day, days) + 1
        clock.now += 2 * HOUR
        lake.sweep_expired()
        assert objects_of(lake) == needed_objects(lake)
        # Rows outlive their blocks where they may, and are not made again from what is left.
        for view_set in (LOG_ENTRIES, MEASURES):
            begin = (clock.now // DAY - its.policies.derived_days(view_set.name, 4)) * DAY
            listed = global_partitions(lake, view_set)
            cover(lake, view_set, clock, begin=begin)
            assert global_partitions(lake, view_set) == listed
        assert one(ask(engine, "SELECT count(*) FROM log_entries")) == 9 * (min(day, 6) + 1)


def test_spans_keep_what_they_go_on_from_as_long_as_there_are_blocks(lake: Lake, clock: HandClock) -> None:
    raw = (StreamPolicy(name="traces", days=8, tag="cpu"), StreamPolicy(name="others", days=2))
    its = settings(RetentionPolicies(raw, {"thread_spans": 3, "async_spans": 30, "log_entries": 3}))
    kept = Retention(lake, its, clock)
    days = {line.policy: line.days for line in kept.report() if line.kind == "derived"}
    assert days == {"thread_spans": 8, "async_spans": 30, "net_spans": 8, "log_entries": 3, DEFAULT: 4}
    assert {each: parts for each, _, parts in kept._derived()}[DEFAULT][0].none_of == days.keys() - {DEFAULT}


def test_instances_go_when_their_own_policies_say(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    programs = [Telemetry(lake, program) for program in (1, 2, 3)]
    its = settings(
        parse_retention_policies("""
            [[raw]]
            days = 100
            [[derived]]
            view_set = "log_entries"
            processes = "exe = 'program 1'"
            days = 8
            [[derived]]
            view_set = "log_entries"
            tag = "log"
            processes = "exe IN ('program 1', 'program 2')"
            days = 1
            [[derived]]
            view_set = "log_entries"
            days = 6
        """)
    )
    asked = [f"SELECT count(*) FROM view_instance('log_entries', '{each.process_id}')" for each in programs]
    for day in range(11):
        for each in programs:
            each.send_logs()
        clock.now += SECOND
        for question in asked:
            assert one(ask(engine, question)) == 3 * (day + 1)
        cover(lake, LOG_ENTRIES, clock)
        clock.now += DAY - SECOND

    def kept() -> list[int]:
        instances = [*(each.process_id for each in programs), "global"]
        return [len(lake.metadata.partitions("log_entries", each)) for each in instances]

    assert kept() == [11, 11, 11, 11]
    lines = [line for line in Retention(lake, its, clock, Selection(engine, its.policies)).report() if line.expired]
    assert [(line.policy, line.days, line.expired) for line in lines] == [
        ("log_entries: derived 1", 8, 3),
        ("log_entries: derived 2", 1, 10),
        (f"log_entries: {DEFAULT}", 6, 10),
    ]
    assert keep_house(lake, engine, its, clock) == 0
    assert kept() == [8, 1, 6, 6]
    # What is older than any policy keeps it goes, though nobody can tell whose it is.
    failing = RetentionPolicies(
        its.policies.raw,
        {"log_entries": 2},
        (InstancePolicy("log_entries", StreamPolicy("it fails", 5, processes="arrow_cast(exe, 'Int64') = 1")),),
    )
    assert keep_house(lake, engine, settings(failing), clock) == 1
    assert kept() == [5, 1, 5, 5]


def test_streams_are_looked_through_once_a_day_but_policies_each_time(
    lake: Lake, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(4):
        telemetry.send_logs()
        clock.now += DAY
    short: set[str] = set()
    policies = RetentionPolicies((StreamPolicy("short", 1, streams="these"), StreamPolicy("longer", 3, tag="log")))
    its = Retention(lake, settings(policies, 9), clock, lambda _table, _predicate: frozenset(short))
    looks: list[list[str]] = []
    delete = lake.delete_blocks_of

    def delete_blocks_of(stream_ids: Sequence[str], *others: int) -> int:
        looks.append(list(stream_ids))
        return delete(stream_ids, *others)

    monkeypatch.setattr(lake, "delete_blocks_of", delete_blocks_of)
    (stream_id,) = lake.metadata.streams_tagged("log")
    its.delete_old_blocks(always)
    assert (len(looks), lake.metadata.count_blocks()) == (2, 3)
    its.delete_old_blocks(always)
    assert len(looks) == 2
    clock.now += DAY
    its.delete_old_blocks(always)
    assert (len(looks), lake.metadata.count_blocks()) == (4, 2)
    # It meets another policy now; what that gives up goes at once.
    short.add(stream_id)
    its.delete_old_blocks(always)
    assert (len(looks), lake.metadata.count_blocks()) == (6, 0)
    # Whoever had to stop has not looked through it.
    clock.now += DAY
    telemetry.send_logs()
    clock.now += 2 * DAY
    its.delete_old_blocks(iter([True, True, False]).__next__)
    its.delete_old_blocks(always)
    assert lake.metadata.count_blocks() == 0


def test_without_policies_everything_has_one_horizon(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += 5 * DAY
    telemetry.send_logs()
    lines = Retention(lake, settings(RetentionPolicies()), clock).report()
    assert [(line.kind, line.policy, line.days, line.streams, line.expired) for line in lines] == [
        ("raw", DEFAULT, 4, 2, 1),
        ("derived", DEFAULT, 4, None, 0),
    ]
    assert lines[0].expired_bytes == lake.metadata.blocks()[0].payload_size
    assert lines[0].kept_from == MIDNIGHT + DAY
    assert keep_house(lake, engine, settings(RetentionPolicies()), clock) == 0
    assert len(lake.metadata.blocks()) == 1


def test_a_predicate_that_fails_deletes_only_what_no_policy_could_keep(
    lake: Lake, clock: HandClock, engine: QueryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(12):
        telemetry.send_logs()
        clock.now += DAY
    cover(lake, LOG_ENTRIES, clock)
    failing = StreamPolicy("it fails", 8, processes="arrow_cast(exe, 'Int64') = 1")
    assert keep_house(lake, engine, settings(RetentionPolicies((failing,))), clock) == 1
    assert "delete_old_blocks failed" in caplog.text
    assert len(lake.metadata.blocks()) == 8
    assert len(global_partitions(lake, LOG_ENTRIES)) == 4, "the other kinds of work go on"


def test_a_predicate_that_selects_nothing_or_null_keeps_to_the_next_policy(
    lake: Lake, clock: HandClock, engine: QueryEngine
) -> None:
    telemetry = Telemetry(lake, 1)
    for _ in range(6):
        telemetry.send_logs()
        clock.now += DAY
    policies = (
        StreamPolicy("null", 1, processes="NULL"),
        StreamPolicy("none", 1, tag="no such tag"),
        StreamPolicy("all", 3),
    )
    assert keep_house(lake, engine, settings(RetentionPolicies(policies)), clock) == 0
    assert len(lake.metadata.blocks()) == 3


@pytest.mark.parametrize("predicate", ["exe = ", "nothing = 1", "1 = 1) OR (", "exe; DROP TABLE x", "count(*) > 1"])
def test_predicates_that_cannot_be_are_told_at_the_start(lake: Lake, engine: QueryEngine, predicate: str) -> None:
    with pytest.raises(PolicyError, match="retention policy 'mine', streams: "):
        Selection(engine, RetentionPolicies((StreamPolicy("mine", 1, streams=predicate),)))


def test_a_view_set_that_is_not_there_is_told_at_the_start(lake: Lake, engine: QueryEngine) -> None:
    with pytest.raises(PolicyError, match="no view set 'log_entrys'"):
        Selection(engine, RetentionPolicies(derived={"log_entrys": 3}))
    Selection(engine, RetentionPolicies(derived={"thread_spans": 3, "processes": 1}))


@pytest.mark.parametrize(
    ("view_set", "complaint"),
    [("log_entrys", "log_entrys"), ("log_stats", "no instances"), ("images", "'mine', processes")],
)
def test_policies_of_instances_that_cannot_be_are_told(
    lake: Lake, engine: QueryEngine, view_set: str, complaint: str
) -> None:
    policies = RetentionPolicies(instances=(InstancePolicy(view_set, StreamPolicy("mine", 1, processes="no")),))
    with pytest.raises(PolicyError, match=complaint):
        Selection(engine, policies)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[raw]", "retention policies: "),
        ("[raw]\ndays = 1", "must be written as"),
        ("[[raw]]\ntag = 'cpu'", "raw entry 1: days must be"),
        ("[[raw]]\ndays = 0", "days must be"),
        ("[[raw]]\ndays = true", "days must be"),
        ("[[raw]]\ndays = 1\nproceses = 'x'", "unknown proceses"),
        ("[[raw]]\ndays = 1\ntag = ''", "tag must be a text"),
        ("[[derived]]\ndays = 1", "view_set is missing"),
        ("[[derived]]\nview_set = 'a'\ntag = 'cpu'", "derived entry 1: days must be"),
        ("[[derived]]\ndays = 1\nview_set = 'a'\n[[derived]]\ndays = 1\nview_set = 'a'", "was spoken of before"),
        ("[[packs]]\ndays = 1", "unknown packs"),
    ],
)
def test_files_that_cannot_be_are_told(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_retention_policies(text)


def test_policies_with_predicates_need_somebody_who_answers_them(lake: Lake, clock: HandClock) -> None:
    with pytest.raises(ValueError, match="need somebody who evaluates"):
        Retention(lake, settings(RetentionPolicies((StreamPolicy("mine", 1, streams="true"),))), clock)


def test_retained_rows_are_checked_like_all_others(lake: Lake, clock: HandClock, engine: QueryEngine) -> None:
    telemetry = Telemetry(lake, 1)
    telemetry.send_logs()
    clock.now += 2 * DAY
    telemetry.send_logs()
    clock.now += SECOND
    cover(lake, LOG_ENTRIES, clock)
    policies = RetentionPolicies((StreamPolicy("short", 1),))
    assert keep_house(lake, engine, settings(policies), clock) == 0
    telemetry.logs = {block.block_id: telemetry.logs[block.block_id] for block in lake.metadata.blocks()}
    (older, _) = global_partitions(lake, LOG_ENTRIES)
    lake.metadata.retire_partitions_within("log_entries", "global", older.begin_insert_time, older.end_insert_time)
    assert check_lake(lake, [telemetry]) == 0
