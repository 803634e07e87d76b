"""Partitions of processes and threads: built once, by whom needs them, and always complete."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from query.asking import answer, ask, column, one
from query.conftest import SETTINGS
from query.traffic import MadeTraffic

from micromegas.config import LakeSettings
from micromegas.lake import Lake, Partition
from micromegas.query import QueryEngine, QueryError, just_in_time
from micromegas.views.block_groups import block_groups


def partitions_of(lake: Lake, view: str, instance_id: str) -> list[Partition]:
    return lake.metadata.partitions(view, instance_id)


def files_in(lake: Lake) -> set[str]:
    return {each.path for each in lake.objects.list("views")}


def test_the_second_query_builds_nothing(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a", "b")
    sql = f"SELECT count(*) FROM view_instance('log_entries', '{traffic.process_id}')"
    assert one(ask(engine, sql)) == 2
    (first,) = partitions_of(lake, "log_entries", traffic.process_id)
    assert one(ask(engine, sql)) == 2
    assert partitions_of(lake, "log_entries", traffic.process_id) == [first]
    traffic.logs("c")
    assert one(ask(engine, sql)) == 3
    (second,) = partitions_of(lake, "log_entries", traffic.process_id)
    assert second.partition_id != first.partition_id


def test_explain_builds_and_decodes_nothing(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("a")
    traffic.broken_logs()
    sql = f"SELECT * FROM view_instance('log_entries', '{traffic.process_id}') JOIN log_entries USING (time)"
    assert ask(local_engine, f"EXPLAIN {sql}").num_rows > 0
    assert local_engine.describe(sql).schema.names[0] == "process_id"
    assert local_lake.metadata.all_partitions() == []
    assert files_in(local_lake) == set()
    assert local_lake.metadata.block_errors() == []
    assert ask(local_engine, f"EXPLAIN ANALYZE {sql}").num_rows > 0
    assert len(local_lake.metadata.all_partitions()) == 1


def test_identical_queries_at_once_leave_one_partition(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    for number in range(20):
        traffic.logs(f"{number}", "x")
    sql = f"SELECT count(*), count(DISTINCT msg) FROM view_instance('log_entries', '{traffic.process_id}')"

    async def at_once() -> list[tuple[int, int]]:
        tables = await asyncio.gather(*(answer(engine, sql) for _ in range(16)))
        return [(column(table, 0)[0], column(table, 1)[0]) for table in tables]

    assert set(asyncio.run(at_once())) == {(40, 21)}
    (partition,) = partitions_of(lake, "log_entries", traffic.process_id)
    assert files_in(lake) == {partition.file_path}


def test_engines_of_different_servers_agree(lake_backend: LakeSettings, lake: Lake) -> None:
    traffic = MadeTraffic(lake)
    sql = f"SELECT count(*) FROM view_instance('log_entries', '{traffic.process_id}')"
    lakes = [Lake.open(lake_backend) for _ in range(3)]
    engines = [QueryEngine(each, SETTINGS) for each in lakes]
    try:
        for number in range(5):
            traffic.logs(*(f"{number}-{place}" for place in range(4)))
            with ThreadPoolExecutor(len(engines)) as threads:
                counts = list(threads.map(lambda used: one(ask(used, sql)), engines))
            assert counts == [4 * (number + 1)] * 3
        (partition,) = partitions_of(lake, "log_entries", traffic.process_id)
        # Files that were replaced wait for their grace period, those of losers are gone at once.
        retired = 4
        assert partition.file_path in files_in(lake)
        assert len(files_in(lake)) <= retired + 1
    finally:
        for opened in engines:
            opened.close()
        for each in lakes:
            each.close()


def test_a_live_process_only_grows_and_nothing_comes_twice(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    sent = 60

    def send() -> None:
        for number in range(sent):
            traffic.logs(f"{number}")
            time.sleep(0.002)

    sender = threading.Thread(target=send)
    sender.start()
    counts = {"global": [0], "instance": [0]}
    try:
        while counts["instance"][-1] < sent or counts["global"][-1] < sent:
            for name, source in (
                ("global", "log_entries"),
                ("instance", f"view_instance('log_entries', '{traffic.process_id}')"),
            ):
                found = ask(engine, f"SELECT count(*), count(DISTINCT msg) FROM {source}")
                assert column(found, 0) == column(found, 1), "a row came twice"
                assert column(found, 0)[0] >= counts[name][-1], "a row went away"
                counts[name].append(column(found, 0)[0])
    finally:
        sender.join()
    assert len(partitions_of(lake, "log_entries", traffic.process_id)) == 1


def test_partitions_beyond_the_range_are_not_built(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("a")
    hours = 3_600_000_000_000
    sql = f"SELECT * FROM view_instance('log_entries', '{traffic.process_id}')"
    assert ask(local_engine, sql, begin=traffic.next_log_time() + hours).num_rows == 0
    assert ask(local_engine, sql, end=traffic.next_log_time() - hours).num_rows == 0
    assert local_lake.metadata.all_partitions() == []


def test_thread_spans_of_a_stream(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    traffic.commit(traffic.thread.spans("(()())"))
    sql = f"SELECT depth, begin, end FROM view_instance('thread_spans', '{traffic.thread.stream_id}') ORDER BY begin"
    spans = ask(engine, sql, begin=0, end=2**62)
    assert spans.num_rows >= 3
    assert all(begin <= end for begin, end in zip(column(spans, 1), column(spans, 2), strict=True))


@pytest.mark.parametrize("view", ["measures", "async_events"])
def test_instances_without_blocks_are_empty(local_lake: Lake, local_engine: QueryEngine, view: str) -> None:
    traffic = MadeTraffic(local_lake)
    assert ask(local_engine, f"SELECT * FROM view_instance('{view}', '{traffic.process_id}')").num_rows == 0


def test_rows_outlive_their_blocks_and_are_never_made_from_fewer(
    lake: Lake, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(just_in_time, "block_groups", partial(block_groups, max_objects=3))
    traffic = MadeTraffic(lake)
    other = MadeTraffic(lake, 2)
    sql = f"SELECT msg FROM view_instance('log_entries', '{traffic.process_id}') ORDER BY msg"
    first = traffic.next_log_time()
    said: list[str] = []
    for number in range(3):
        names = [f"{number}{name}" for name in "abc"]
        for name in names:
            traffic.logs(name)
            other.logs(name)
        said += names
        if number < 2:
            assert column(ask(engine, sql)) == said
    before = partitions_of(lake, "log_entries", traffic.process_id)
    assert len(before) == 2
    blocks = lake.metadata.blocks(process_id=traffic.process_id)
    # The first partition loses all blocks, the second all but one.
    for gone in (blocks[1].insert_time, blocks[5].insert_time):
        while lake.delete_blocks_before(gone):
            pass
        assert column(ask(engine, sql)) == said
        for place, name in enumerate(said):
            assert column(ask(engine, sql, begin=first + place, end=first + place)) == [name]
    after = partitions_of(lake, "log_entries", traffic.process_id)
    assert after[:2] == before
    assert len(after) == 3
    # And when everything is gone that could be told by.
    traffic.logs("3a")
    assert column(ask(engine, sql)) == [*said, "3a"]
    while lake.delete_blocks_before(2**62):
        pass
    assert lake.metadata.blocks() == []
    assert column(ask(engine, sql)) == [*said, "3a"]
    assert partitions_of(lake, "log_entries", traffic.process_id)[:2] == before
    assert list(lake.metadata.processes([traffic.process_id, other.process_id])) == [traffic.process_id]
    for each in partitions_of(lake, "log_entries", traffic.process_id):
        lake.metadata.replace_partitions("log_entries", traffic.process_id, frozenset({each.partition_id}), None)
    while lake.delete_blocks_before(2**62):
        pass
    assert lake.metadata.processes([traffic.process_id]) == {}
    with pytest.raises(QueryError, match="unknown process"):
        ask(engine, sql)
