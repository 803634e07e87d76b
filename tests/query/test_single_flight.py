"""What several queries or servers need at the same time is built once, whoever dies or falls asleep meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from query.asking import answer, ask, column, one
from query.building import SERVERS, Builds, ask_when_told, build_until_killed
from query.conftest import SETTINGS
from query.traffic import MadeTraffic

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake, LeaseClaim
from micromegas.lake.metadata import schema
from micromegas.query import QueryEngine, QueryError, just_in_time
from micromegas.query.bounds import EVERYTHING
from micromegas.query.build_leases import PREFIX, BuildLeases
from micromegas.query.just_in_time import JustInTime
from micromegas.views import block_groups
from micromegas.views.log_entries import LOG_ENTRIES

DEADLINE_S = 60.0
DAYS = 86_400_000_000_000


@pytest.fixture
def builds() -> Iterator[Builds]:
    counted = Builds()
    yield counted
    counted.end()


def files_in(lake: Lake) -> set[str]:
    return {each.path for each in lake.objects.list("views")}


def leases_of(lake: Lake) -> list[str]:
    with lake.metadata._database.read() as connection:
        return list(connection.execute(sa.select(schema.leases.c.name)).scalars())


def instance_sql(traffic: MadeTraffic) -> str:
    return f"SELECT count(*), count(DISTINCT msg) FROM view_instance('log_entries', '{traffic.process_id}')"


def check_partitions(lake: Lake, traffic: MadeTraffic) -> int:
    """One partition per range, no object but theirs, and nobody's lease; returns how many there are."""
    partitions = lake.metadata.partitions("log_entries", traffic.process_id)
    for before, after in itertools.pairwise(partitions):
        assert before.end_insert_time <= after.begin_insert_time
    assert files_in(lake) == {each.file_path for each in partitions}
    assert leases_of(lake) == []
    return len(partitions)


def test_identical_queries_on_several_servers_decode_the_blocks_once(lake_backend: LakeSettings, lake: Lake) -> None:
    traffic = MadeTraffic(lake)
    for number in range(40):
        traffic.logs(f"{number}", "x")
    servers = []
    for _ in range(3):
        mine, theirs = SERVERS.Pipe()
        process = SERVERS.Process(target=ask_when_told, args=(lake_backend, instance_sql(traffic), 6, theirs))
        process.start()
        theirs.close()
        servers.append((process, mine))
    try:
        for _, server in servers:
            assert server.poll(DEADLINE_S)
            assert server.recv() == "ready"
        for _, server in servers:
            server.send("go")
        built = 0
        for _, server in servers:
            assert server.poll(DEADLINE_S)
            answers, count = server.recv()
            assert [list(rows[0].values()) for rows in answers] == [[80, 41]] * 6
            built += count
        assert built == 1
    finally:
        for process, server in servers:
            server.close()
            process.kill()
            process.join()
    assert check_partitions(lake, traffic) == 1


@pytest.mark.parametrize("step", ["add_expiring_object", "replace_partitions"])
def test_a_killed_builder_holds_nobody_up_beyond_its_lease(lake_backend: LakeSettings, lake: Lake, step: str) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a", "b")
    mine, theirs = SERVERS.Pipe()
    arguments = (lake_backend, traffic.process_id, step, 1.0, theirs)
    process = SERVERS.Process(target=build_until_killed, args=arguments)
    process.start()
    theirs.close()
    engine = QueryEngine(lake, SETTINGS)
    try:
        assert mine.poll(DEADLINE_S)
        assert mine.recv() == "building"
        assert len(leases_of(lake)) == 1
        process.kill()
        process.join()
        assert column(ask(engine, instance_sql(traffic))) == [2]
    finally:
        engine.close()
        process.kill()
        process.join()
        mine.close()
    (partition,) = lake.metadata.partitions("log_entries", traffic.process_id)
    assert leases_of(lake) == []
    # What the dead builder had written is listed for deletion.
    left = files_in(lake) - {partition.file_path}
    assert len(left) == (step == "replace_partitions")
    with lake.metadata._database.read() as connection:
        assert left <= set(connection.execute(sa.select(schema.expiring_objects.c.path)).scalars())


def test_who_lost_the_lease_can_not_commit_but_gets_the_answer(
    lake_backend: LakeSettings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a", "b")
    asleep, woken = threading.Event(), threading.Event()
    commit = lake.metadata.replace_partitions

    def late_commit(*arguments: Any, **named: Any) -> None:
        asleep.set()
        assert woken.wait(DEADLINE_S)
        commit(*arguments, **named)

    monkeypatch.setattr(lake.metadata, "renew_lease", lambda *_: False)
    monkeypatch.setattr(lake.metadata, "replace_partitions", late_commit)
    sleeper = JustInTime(lake, DEADLINE_S, lease_ttl_s=0.2)
    with Lake.open(lake_backend) as other, ThreadPoolExecutor(1) as thread:
        slow = thread.submit(sleeper.rows, LOG_ENTRIES, traffic.process_id, EVERYTHING)
        assert asleep.wait(DEADLINE_S)
        taker = JustInTime(other, DEADLINE_S)
        taken = taker.rows(LOG_ENTRIES, traffic.process_id, EVERYTHING).partitions
        woken.set()
        assert slow.result(DEADLINE_S).partitions == taken
        taker.close()
    sleeper.close()
    assert check_partitions(lake, traffic) == 1


def test_a_lost_claim_is_refused_even_where_the_partitions_are_as_expected(lake: Lake) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a")
    leases = BuildLeases(lake, 60.0)
    first = leases.take("x")
    assert first is not None
    assert leases.take("x") is None
    assert lake.metadata.drop_lease(first)
    second = leases.take("x")
    assert second is not None
    assert second.token != first.token
    assert not lake.metadata.drop_lease(first)
    assert leases.is_taken("x")
    (group,) = block_groups.block_groups(lake.metadata.blocks(tag="log"))
    for claim, refused in ((first, True), (LeaseClaim(f"{PREFIX}y", second.token), True), (second, False)):
        slot = just_in_time.PartitionSlot(LOG_ENTRIES, traffic.process_id, group.insert_range, frozenset(), claim)
        if refused:
            with pytest.raises(just_in_time.PartitionConflict, match="lease"):
                just_in_time.build_partition(lake, slot, group.blocks)
        else:
            just_in_time.build_partition(lake, slot, group.blocks)
    leases.give_back(first, used_up=True)
    leases.give_back(second, used_up=True)
    assert check_partitions(lake, traffic) == 1


def test_waiting_for_another_server_has_a_limit(local_lake: Lake) -> None:
    traffic = MadeTraffic(local_lake)
    block = traffic.logs("a")
    (row,) = [each for each in local_lake.metadata.blocks() if each.block_id == block.block_id]
    name = f"{PREFIX}log_entries/{traffic.process_id}/{row.insert_time}"
    assert local_lake.metadata.acquire_lease(name, "another server", DAYS) is not None
    builder = JustInTime(local_lake, 0.2)
    with pytest.raises(QueryError, match="still being built") as failure:
        builder.rows(LOG_ENTRIES, traffic.process_id, EVERYTHING)
    builder.close()
    assert failure.value.kind == "exhausted"


def test_leases_of_the_dead_are_forgotten(lake: Lake) -> None:
    long_ago = lake.clock() - DAYS
    with lake.metadata._database.write() as connection:
        for name, expires in ((f"{PREFIX}dead", long_ago), (f"{PREFIX}alive", lake.clock() + DAYS), ("daemon/x", 0)):
            connection.execute(sa.insert(schema.leases).values(name=name, owner="x", token=1, expires=expires))
    leases = BuildLeases(lake, 0.05)
    claim = leases.take("mine")
    assert claim is not None
    deadline = time.monotonic() + DEADLINE_S
    while f"{PREFIX}dead" in leases_of(lake) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(leases_of(lake)) == {f"{PREFIX}alive", f"{PREFIX}mine", "daemon/x"}
    # Kept alive far beyond its time.
    time.sleep(0.3)
    assert leases.is_taken("mine")
    leases.give_back(claim, used_up=False)
    assert not leases.is_taken("mine")


@pytest.mark.parametrize("seed", range(3))
def test_servers_that_build_while_telemetry_arrives_agree(
    lake_backend: LakeSettings, lake: Lake, builds: Builds, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Small groups, leases that run out under their holders, and several queries on each of three servers."""
    monkeypatch.setattr(
        just_in_time, "block_groups", partial(block_groups.block_groups, max_objects=30, small_objects=10)
    )
    random = Random(seed)
    traffic = MadeTraffic(lake, seed + 1)
    sent = 0
    lakes = [Lake.open(lake_backend) for _ in range(3)]
    servers = [QueryEngine(each, QuerySettings(statement_timeout_s=DEADLINE_S)) for each in lakes]
    for server, opened in zip(servers, lakes, strict=True):
        server._just_in_time._leases = BuildLeases(opened, random.choice([0.01, 0.05, 15.0]))
    try:
        with ThreadPoolExecutor(9) as threads:
            for _ in range(4):
                for _ in range(random.randrange(1, 8)):
                    traffic.logs(*(f"{sent + place}" for place in range(5)))
                    sent += 5
                asked = [threads.submit(ask, server, instance_sql(traffic)) for server in servers for _ in range(3)]
                more = random.randrange(3)
                for number in range(more):
                    traffic.logs(*(f"{sent + 5 * number + place}" for place in range(5)))
                for each in asked:
                    rows = each.result(DEADLINE_S)
                    assert column(rows, 0) == column(rows, 1)
                    assert sent <= column(rows, 0)[0] <= sent + 5 * more
                sent += 5 * more
        assert one(ask(servers[0], instance_sql(traffic).replace(", count(DISTINCT msg)", ""))) == sent
    finally:
        for server in servers:
            server.close()
        for opened in lakes:
            opened.close()
    assert leases_of(lake) == []
    current = {each.file_path for each in lake.metadata.partitions("log_entries", traffic.process_id)}
    with lake.metadata._database.read() as connection:
        retired = set(connection.execute(sa.select(schema.expiring_objects.c.path)).scalars())
    assert files_in(lake) == current | retired
    assert not current & retired
    assert builds.count >= len(current)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_whoever_is_gone_waits_for_no_build(
    local_lake: Lake, local_engine: QueryEngine, builds: Builds, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Clients that leave give their planning threads back at once, while the build goes on for those who come later."""
    traffic = MadeTraffic(local_lake)
    block = traffic.logs("a", "b")
    (row,) = [each for each in local_lake.metadata.blocks() if each.block_id == block.block_id]
    begun, may_go_on = threading.Event(), threading.Event()
    add_expiring_object = local_lake.metadata.add_expiring_object
    name = f"{PREFIX}log_entries/{traffic.process_id}/{row.insert_time}"

    def slow(path: str, expires: int) -> None:
        begun.set()
        assert may_go_on.wait(DEADLINE_S)
        add_expiring_object(path, expires)

    monkeypatch.setattr(local_lake.metadata, "add_expiring_object", slow)
    token = local_lake.metadata.acquire_lease(name, "another server", DAYS) if elsewhere else None

    async def scenario() -> None:
        # As many as there are threads to plan with, and then some.
        left = [asyncio.create_task(answer(local_engine, instance_sql(traffic))) for _ in range(40)]
        while not (elsewhere or begun.is_set()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        assert (await answer(local_engine, "SELECT exe FROM processes")).num_rows == 1

    try:
        asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))
    finally:
        may_go_on.set()
        if token is not None:
            local_lake.metadata.release_lease(name, token)
    assert column(ask(local_engine, instance_sql(traffic))) == [2]
    assert builds.count == 1
    assert check_partitions(local_lake, traffic) == 1
