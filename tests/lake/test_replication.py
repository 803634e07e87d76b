"""Copying blocks from another lake: rows and payloads in any order, from anybody, any number of times."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from senders import block, payload, process, stream

from micromegas.lake import (
    BlockHeader,
    BlockIds,
    Lake,
    LakeCorrupt,
    LakeUnavailable,
    ReplicaMismatch,
    Replication,
)
from micromegas.lake.metadata import schema
from micromegas.wire import Block


def header_of(sent: Block) -> BlockHeader:
    facts = {name: getattr(sent, name) for name in BlockHeader.__dataclass_fields__ if name != "payload_size"}
    return BlockHeader(**facts, payload_size=len(sent.payload))


def ids_of(sent: Block) -> BlockIds:
    return BlockIds(sent.block_id, sent.stream_id, sent.process_id)


def assert_nothing_waits(lake: Lake) -> None:
    assert lake.metadata.replicas_before(2**62, 10) == []
    assert [each.path for each in lake.objects.list("blobs")] == []


def test_every_order_ends_with_the_same_block(lake: Lake) -> None:
    replication = Replication(lake)
    for order in itertools.permutations(range(4)):
        owner = process()
        log = stream(owner.process_id)
        sent = block(log, payload=payload(500))
        steps = [
            lambda owner=owner: replication.take_processes([owner]),
            lambda log=log: replication.take_streams([log]),
            lambda sent=sent: replication.take_blocks([header_of(sent)]),
            lambda sent=sent: replication.take_payloads([(ids_of(sent), sent.payload)]),
        ]
        for step in order:
            assert lake.metadata.blocks(process_id=owner.process_id) == []
            before = lake.metadata.watermark()
            for _ in range(2):
                steps[step]()
        (row,) = lake.metadata.blocks(process_id=owner.process_id)
        assert lake.read_payload(row) == sent.payload
        assert (row.begin_ticks, row.end_time, row.nb_objects) == (sent.begin_ticks, sent.end_time, sent.nb_objects)
        # visible with the commit that completed it: nobody who read an older watermark missed it
        assert row.insert_time > before
        for step in order:
            steps[step]()
        assert lake.metadata.blocks(process_id=owner.process_id) == [row]
    assert_nothing_waits(lake)


def test_two_who_send_the_halves_at_once_never_miss_each_other(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    replication = Replication(lake)
    replication.take_processes([owner])
    replication.take_streams([log])
    chance = random.Random(20261123)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(8):
            sent = [block(log, payload=payload(100)) for _ in range(20)]
            together = threading.Barrier(4)

            def take_rows(blocks: list[Block], together: threading.Barrier = together) -> None:
                together.wait()
                replication.take_blocks([header_of(each) for each in blocks])

            def take_payloads(blocks: list[Block], together: threading.Barrier = together) -> None:
                together.wait()
                replication.take_payloads([(ids_of(each), each.payload) for each in blocks])

            shuffled = [chance.sample(sent, len(sent)) for _ in range(4)]
            works = zip([take_rows, take_payloads] * 2, shuffled, strict=True)
            for done in [threads.submit(work, part) for work, part in works]:
                done.result()
            arrived = {row.block_id: lake.read_payload(row) for row in lake.metadata.blocks(stream_id=log.stream_id)}
            assert {each.block_id: each.payload for each in sent}.items() <= arrived.items()
    assert_nothing_waits(lake)


def test_a_payload_that_is_not_the_rows_is_refused(lake: Lake) -> None:
    log = stream(process().process_id)
    sent = block(log, payload=payload(500))
    replication = Replication(lake)
    replication.take_blocks([header_of(sent)])
    with pytest.raises(ReplicaMismatch, match=sent.block_id):
        replication.take_payloads([(ids_of(sent), sent.payload + b"x")])
    replication.take_payloads([(ids_of(sent), sent.payload)])
    assert lake.metadata.known_block_ids([sent.block_id])


@pytest.mark.parametrize("rows_first", [True, False])
def test_one_wrong_payload_does_not_stop_the_others(lake: Lake, rows_first: bool) -> None:
    log = stream(process().process_id)
    sent = [block(log, payload=payload(500)) for _ in range(4)]
    payloads = [(ids_of(each), each.payload + b"x" * (place == 1)) for place, each in enumerate(sent)]
    headers = [header_of(each) for each in sent]
    replication = Replication(lake)
    steps = [lambda: replication.take_blocks(headers), lambda: replication.take_payloads(payloads)]
    first, last = steps if rows_first else reversed(steps)
    first()
    with pytest.raises(ReplicaMismatch, match=f"{sent[1].block_id} has .* bytes, its row speaks of"):
        last()
    ids = {each.block_id for each in sent}
    assert lake.metadata.known_block_ids(sorted(ids)) == ids - {sent[1].block_id}
    replication.take_payloads([(ids_of(sent[1]), sent[1].payload)])
    assert lake.metadata.known_block_ids(sorted(ids)) == ids
    assert_nothing_waits(lake)


def test_objects_of_a_killed_writer_are_swept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stream(process().process_id)
    noted, lost, again = [block(log, payload=payload(500)) for _ in range(3)]
    replication = Replication(lake)
    replication.take_payloads([(ids_of(noted), noted.payload)])

    def fail(_: object) -> list[BlockHeader]:
        raise LakeUnavailable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(lake.metadata, "note_replica_payloads", fail)
        for _ in range(2):
            with pytest.raises(LakeUnavailable):
                replication.take_payloads([(ids_of(each), each.payload) for each in (noted, lost, again)])
    assert len(list(lake.objects.list("blobs"))) == 3
    replication.take_payloads([(ids_of(again), again.payload)])
    later = lake.clock() + 7 * 3600 * 10**9
    monkeypatch.setattr(lake.metadata, "_clock", lambda: later)
    assert lake.sweep_expired() == 1
    kept = {each.lone_object_key for each in map(ids_of, (noted, again))}
    assert {each.path for each in lake.objects.list("blobs")} == kept
    # and nobody writes what is just being deleted
    with monkeypatch.context() as patched:
        patched.setattr(lake.metadata, "note_replica_payloads", fail)
        with pytest.raises(LakeUnavailable):
            replication.take_payloads([(ids_of(lost), lost.payload)])
        assert len(lake.metadata.expired_objects(10)) == 1
    with pytest.raises(LakeUnavailable, match="being deleted"):
        replication.take_payloads([(ids_of(lost), lost.payload)])
    assert lake.sweep_expired() == 1
    replication.take_payloads([(ids_of(lost), lost.payload)])
    replication.take_blocks([header_of(each) for each in (noted, lost, again)])
    assert_nothing_waits(lake)


def test_a_crash_before_the_commit_is_made_good_by_sending_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stream(process().process_id)
    sent = block(log, payload=payload(500))
    replication = Replication(lake)
    replication.take_payloads([(ids_of(sent), sent.payload)])

    def fail(_: object) -> None:
        raise LakeUnavailable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(lake, "commit", fail)
        with pytest.raises(LakeUnavailable):
            replication.take_blocks([header_of(sent)])
    assert not lake.metadata.known_block_ids([sent.block_id])
    replication.take_payloads([(ids_of(sent), sent.payload)])
    assert lake.metadata.known_block_ids([sent.block_id])
    assert_nothing_waits(lake)


def test_a_lost_object_is_named_and_can_be_sent_again(lake: Lake) -> None:
    log = stream(process().process_id)
    sent = block(log, payload=payload(500))
    replication = Replication(lake)
    replication.take_payloads([(ids_of(sent), sent.payload)])
    lake.objects.delete([each.path for each in lake.objects.list("blobs")])
    with pytest.raises(LakeCorrupt, match=f"{sent.block_id}.*send the payload again"):
        replication.take_blocks([header_of(sent)])
    replication.take_payloads([(ids_of(sent), sent.payload)])
    assert lake.metadata.known_block_ids([sent.block_id])
    assert_nothing_waits(lake)


def test_halves_that_nobody_completes_end_with_retention(lake: Lake) -> None:
    log = stream(process().process_id)
    one, other = block(log, payload=payload(500)), block(log, payload=payload(500))
    replication = Replication(lake)
    replication.take_payloads([(ids_of(one), one.payload)])
    replication.take_blocks([header_of(other)])
    first = min(row.received for row in _replica_rows(lake))
    assert lake.delete_blocks_before(first) == 0
    assert len(_replica_rows(lake)) == 2
    assert lake.delete_blocks_before(2**62) == 2
    assert_nothing_waits(lake)


def _replica_rows(lake: Lake) -> list:
    with lake.metadata._database.read() as connection:
        return list(connection.execute(schema.replicas.select()))
