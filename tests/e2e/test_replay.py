"""Recorded traffic of real senders, posted in every order, gives exactly its events in SQL, before and after the daemon
has made partitions of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import cbor2
import pyarrow as pa
import pytest
from e2e.answers import (
    ASYNC_COLUMNS,
    LOG_COLUMNS,
    MEASURE_COLUMNS,
    SPAN_COLUMNS,
    assert_event_rows,
    assert_same_rows,
    know_clocks,
    properties_of,
    records,
    rows_of,
)
from e2e.encodings import partly_in_columns
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import SCENARIOS, Recording, Request, recording
from e2e.reference import (
    ProcessReference,
    async_event_rows,
    log_rows,
    measure_rows,
    nanoseconds,
    processes_of,
    thread_span_rows,
)
from e2e.serving import Service, serving, uncovered_blocks, wait_until_materialized

from micromegas.config import LakeSettings
from micromegas.lake import Lake

SEED = 20261122
SMALL = [name for name in SCENARIOS if name != "service"]
BLOCK_COLUMN = 2
GLOBAL_VIEWS = {
    "log_entries": (LOG_COLUMNS, "log", log_rows),
    "measures": (MEASURE_COLUMNS, "metrics", measure_rows),
}


@dataclass(frozen=True, slots=True)
class Replay:
    """A server that has taken every scenario in every order, and its first answers."""

    service: Service
    processes: dict[str, ProcessReference]
    fresh: dict[str, pa.Table]


def orders(random: Random) -> Iterator[tuple[list[Recording], list[Request], int]]:
    """Recordings, the requests that bring them, and over how many connections at once."""
    recorded = [recording(name) for name in SMALL]
    yield recorded, [request for each in recorded for request in each.requests], 1

    shuffled = [recording(name).renamed("shuffled") for name in SMALL]
    requests = [request for each in shuffled for request in each.requests]
    random.shuffle(requests)
    yield shuffled, requests, 4

    reverse = [recording(name).renamed("reversed") for name in SMALL]
    yield reverse, [request for each in reverse for request in each.requests][::-1], 1

    repeated = [recording(name).renamed("repeated") for name in SMALL]
    # Three of a kind side by side, so that repeats meet in one batch and in neighbouring ones.
    yield repeated, [request for each in repeated for request in each.requests for _ in range(3)], 8

    for remainder in (0, 1):
        mixed = [partly_in_columns(recording(name).renamed(f"columns {remainder}"), remainder) for name in SMALL]
        requests = [request for each in mixed for request in each.requests]
        random.shuffle(requests)
        yield mixed, requests, 4

    service = partly_in_columns(recording("service"), 0)
    requests = service.requests * 2
    random.shuffle(requests)
    yield [service], requests, 4


@pytest.fixture(scope="module")
def replay(module_lake: LakeSettings) -> Iterator[Replay]:
    with serving(module_lake) as service:
        recordings: list[Recording] = []
        for some, requests, connections in orders(Random(SEED)):
            assert_all_accepted(requests, post_all(service.http_port, requests, connections))
            recordings += some
        fresh = {view: service.query(f"SELECT {columns} FROM {view}") for view, (columns, _, _) in GLOBAL_VIEWS.items()}
        wait_until_materialized(service)
        processes = processes_of(recordings)
        with Lake.open(module_lake) as lake:
            know_clocks(lake.metadata, processes)
        yield Replay(service, processes, fresh)


@pytest.mark.parametrize("view", GLOBAL_VIEWS)
def test_global_view_is_complete_right_after_the_last_answer(replay: Replay, view: str) -> None:
    _, tag, rows_of_block = GLOBAL_VIEWS[view]
    rows = rows_of(replay.fresh[view])
    assert_event_rows(rows, BLOCK_COLUMN, replay.processes, tag, rows_of_block)


@pytest.mark.parametrize("view", GLOBAL_VIEWS)
def test_global_view_is_the_same_from_partitions(replay: Replay, view: str) -> None:
    columns, tag, rows_of_block = GLOBAL_VIEWS[view]
    assert not uncovered_blocks(replay.service, view, tag)
    rows = rows_of(replay.service.query(f"SELECT {columns} FROM {view}"))
    assert_event_rows(rows, BLOCK_COLUMN, replay.processes, tag, rows_of_block)


@pytest.mark.parametrize("view", GLOBAL_VIEWS)
def test_process_instances_hold_what_the_global_view_holds(replay: Replay, view: str) -> None:
    columns, tag, rows_of_block = GLOBAL_VIEWS[view]
    for process in replay.processes.values():
        rows = rows_of(replay.service.query(f"SELECT {columns} FROM view_instance('{view}', '{process.process_id}')"))
        only = {process.process_id: process}
        assert_event_rows(rows, BLOCK_COLUMN, only, tag, rows_of_block)


def test_async_events(replay: Replay) -> None:
    for process in replay.processes.values():
        table = replay.service.query(
            f"SELECT {ASYNC_COLUMNS} FROM view_instance('async_events', '{process.process_id}')"
        )
        only = {process.process_id: process}
        assert_event_rows(rows_of(table), 1, only, "cpu", async_event_rows)


def test_thread_spans(replay: Replay) -> None:
    for process in replay.processes.values():
        for stream_id, stream in process.streams.items():
            if "cpu" in stream["tags"]:
                sql = f"SELECT {SPAN_COLUMNS} FROM view_instance('thread_spans', '{stream_id}')"
                rows = rows_of(replay.service.query(sql, ranged=True))
                assert_same_rows(rows, thread_span_rows(process, stream_id), f"stream {stream_id}")


def test_insert_times_are_those_of_the_blocks(replay: Replay) -> None:
    for view in GLOBAL_VIEWS:
        sql = (
            f"SELECT DISTINCT l.block_id, l.insert_time, b.insert_time AS expected FROM {view} l "
            "LEFT JOIN blocks b ON l.block_id = b.block_id"
        )
        for row in records(replay.service.query(sql)):
            assert row["insert_time"] == row["expected"], row["block_id"]


def test_blocks(replay: Replay) -> None:
    found = {row["block_id"]: row for row in records(replay.service.query("SELECT * FROM blocks"))}
    expected = {
        block.header["block_id"]: (process, block) for process in replay.processes.values() for block in process.blocks
    }
    assert found.keys() == expected.keys()
    for block_id, row in found.items():
        process, block = expected[block_id]
        header = block.header
        stream = process.streams[header["stream_id"]]
        plain = ("stream_id", "process_id", "begin_ticks", "end_ticks", "nb_objects", "object_offset")
        assert {key: row[key] for key in plain} == {key: header[key] for key in plain}
        assert (row["begin_time"], row["end_time"]) == (
            nanoseconds(header["begin_time"]),
            nanoseconds(header["end_time"]),
        )
        if "format" not in stream:
            assert row["payload_size"] > header["dependencies_lz4_bytes"] + header["objects_lz4_bytes"]
        assert row["streams.tags"] == stream["tags"]
        assert row["streams.format"] == stream.get("format", "micromegas-transit")
        assert properties_of(row["streams.properties"]) == frozenset(stream["properties"].items())
        assert properties_of(row["processes.properties"]) == process.properties
        assert row["processes.start_time"] == process.start_time
        assert row["processes.parent_process_id"] == ""
        for key in ("start_ticks", "tsc_frequency", "exe", "username", "realname", "computer", "distro", "cpu_brand"):
            assert row[f"processes.{key}"] == process.facts[key]
        # A block shows up with the later of its announcements, never before.
        assert row["insert_time"] >= max(row["streams.insert_time"], row["processes.insert_time"])


def test_processes(replay: Replay) -> None:
    found = {row["process_id"]: row for row in records(replay.service.query("SELECT * FROM processes"))}
    assert found.keys() == replay.processes.keys()
    blocks = records(replay.service.query("SELECT process_id, insert_time FROM blocks"))
    for process_id, row in found.items():
        process = replay.processes[process_id]
        for key in ("start_ticks", "tsc_frequency", "exe", "username", "realname", "computer", "distro", "cpu_brand"):
            assert row[key] == process.facts[key]
        assert row["start_time"] == process.start_time
        assert row["parent_process_id"] == ""
        assert properties_of(row["properties"]) == process.properties
        assert row["last_block_end_ticks"] == max(block.header["end_ticks"] for block in process.blocks)
        assert row["last_block_end_time"] == max(nanoseconds(block.header["end_time"]) for block in process.blocks)
        newest = max(block["insert_time"] for block in blocks if block["process_id"] == process_id)
        assert row["last_update_time"] >= newest


def test_streams(replay: Replay) -> None:
    found = {row["stream_id"]: row for row in records(replay.service.query("SELECT * FROM streams"))}
    expected = {
        stream_id: stream for process in replay.processes.values() for stream_id, stream in process.streams.items()
    }
    assert found.keys() == expected.keys()
    for stream_id, row in found.items():
        stream = expected[stream_id]
        assert (row["process_id"], row["tags"]) == (stream["process_id"], stream["tags"])
        assert row["format"] == stream.get("format", "micromegas-transit")
        assert properties_of(row["properties"]) == frozenset(stream["properties"].items())
        for key in ("dependencies_metadata", "objects_metadata"):
            assert cbor2.loads(row[key]) == stream[key]


def test_nothing_is_listed_as_undecodable(replay: Replay) -> None:
    assert records(replay.service.query("SELECT * FROM list_block_errors()")) == []


def test_payloads_are_what_the_senders_sent(replay: Replay) -> None:
    for name in SMALL:
        for request in recording(name).requests:
            sent = cbor2.loads(request.body)
            if "block_id" not in sent:
                continue
            ids = ", ".join(f"'{sent[key].lower()}'" for key in ("process_id", "stream_id", "block_id"))
            table = replay.service.query(f"SELECT get_payload({ids}) AS payload")
            kept = cbor2.loads(table["payload"][0].as_py())
            assert kept == {key: bytes(value) for key, value in sent["payload"].items()}


def test_a_question_over_all_three_kinds(replay: Replay) -> None:
    """One statement over logs, measures and spans of the process whose numbers are known from its recording."""
    process = next(each for each in replay.processes.values() if each.process_id in recording("service").processes)
    threads = [stream_id for stream_id, stream in process.streams.items() if "cpu" in stream["tags"]]
    spans = " UNION ALL ".join(f"SELECT name FROM view_instance('thread_spans', '{each}')" for each in threads)
    sql = (
        f"SELECT (SELECT count(*) FROM log_entries WHERE process_id = '{process.process_id}') AS logs, "
        f"(SELECT count(*) FROM measures WHERE process_id = '{process.process_id}') AS measures, "
        f"(SELECT count(*) FROM ({spans})) AS spans"
    )
    counted = {tag: sum(len(block.events) for block in process.blocks_tagged(tag)) for tag in ("log", "metrics", "cpu")}
    answer = records(replay.service.query(sql, ranged=True))
    # Each span is two events, and each thread has a root.
    spans_expected = counted["cpu"] // 2 + len(threads)
    assert answer == [{"logs": counted["log"], "measures": counted["metrics"], "spans": spans_expected}]


def test_tail_alone_without_a_daemon(folder_lake: LakeSettings) -> None:
    """Ingestion and queries as processes of their own, and nobody who makes partitions of the global views."""
    recordings = [recording(name).renamed("roles") for name in SMALL]
    requests = [request for each in recordings for request in each.requests]
    with serving(folder_lake, "ingest") as ingest, serving(folder_lake, "query-server") as queries:
        seen = 0
        for position, request in enumerate(requests):
            assert_all_accepted([request], post_all(ingest.http_port, [request]))
            if position % 40 == 0:
                logs = queries.query("SELECT count(*) AS n FROM log_entries")["n"][0].as_py()
                assert logs >= seen
                seen = logs
        processes = processes_of(recordings)
        with Lake.open(folder_lake) as lake:
            know_clocks(lake.metadata, processes)
        for view, (columns, tag, rows_of_block) in GLOBAL_VIEWS.items():
            rows = rows_of(queries.query(f"SELECT {columns} FROM {view}"))
            assert_event_rows(rows, BLOCK_COLUMN, processes, tag, rows_of_block)
        kept = records(queries.query("SELECT view_set_name FROM list_partitions()"))
        assert Counter(row["view_set_name"] for row in kept) == Counter()
        with serving(folder_lake, "daemon"):
            wait_until_materialized(queries)
        for view, (columns, tag, rows_of_block) in GLOBAL_VIEWS.items():
            rows = rows_of(queries.query(f"SELECT {columns} FROM {view}"))
            assert_event_rows(rows, BLOCK_COLUMN, processes, tag, rows_of_block)
