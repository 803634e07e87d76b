"""What a commit promises: durable, idempotent, visible in the order of its clock, in whatever order things arrive."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa
from senders import block, new_id, payload, process, stream

from micromegas.config import LakeSettings
from micromegas.lake import Lake, LakeCorrupt, LakeUnavailable
from micromegas.lake.metadata import schema
from micromegas.lake.pack import ALONE_FROM_BYTES
from micromegas.wire import Batch


def packs(lake: Lake) -> list[str]:
    return sorted(each.path for each in lake.objects.list("packs"))


def test_payloads_come_back_byte_for_byte(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    blocks = [block(log, payload=payload(size, bytes([size % 251]))) for size in (0, 1, 1000, ALONE_FROM_BYTES, 70_000)]
    lake.commit(Batch([owner], [log], blocks))
    rows = lake.metadata.blocks()
    read = dict(zip([row.block_id for row in rows], lake.read_payloads(rows), strict=True))
    assert read == {each.block_id: each.payload for each in blocks}
    assert [lake.read_payload(row) for row in reversed(rows)] == [read[row.block_id] for row in reversed(rows)]
    # The small ones share an object, the big one has its own.
    assert len(packs(lake)) == 2


def test_every_order_of_arrival_ends_the_same(lake: Lake) -> None:
    for order in itertools.permutations(range(3)):
        owner = process()
        log = stream(owner.process_id)
        late = block(log)
        parts = [Batch(processes=[owner]), Batch(streams=[log]), Batch(blocks=[late])]
        for position, part in enumerate(order):
            assert lake.metadata.blocks(process_id=owner.process_id) == []
            before = lake.metadata.watermark()
            lake.commit(parts[part])
            assert lake.metadata.watermark() > before
            pending = [each.block_id for each in lake.metadata.block_errors() if each.view_set is None]
            assert (late.block_id in pending) == (2 in order[: position + 1] and position < 2)
        (row,) = lake.metadata.blocks(process_id=owner.process_id)
        # The block becomes visible with the commit that completed it, so nobody who read an older watermark missed it.
        assert row.insert_time == lake.metadata.watermark() > before
        summary = lake.metadata.processes([owner.process_id])[owner.process_id]
        assert (summary.last_update_time, summary.last_block_end_ticks, summary.last_block_end_time) == (
            row.insert_time,
            late.end_ticks,
            late.end_time,
        )
        assert lake.metadata.streams([log.stream_id])[log.stream_id].last_update_time == row.insert_time


def test_first_version_of_an_id_wins(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id, tags=["log"])
    first = block(log, payload=payload(10, b"1"))
    lake.commit(Batch([owner], [log], [first]))
    objects = packs(lake)
    lake.commit(
        Batch(
            [replace(owner, exe="other")],
            [replace(log, tags=["metrics"])],
            [replace(first, payload=payload(20, b"2"), nb_objects=7)],
        )
    )
    (row,) = lake.metadata.blocks()
    assert (row.nb_objects, lake.read_payload(row)) == (1, first.payload)
    assert lake.metadata.processes([owner.process_id])[owner.process_id].exe == "program"
    assert [each.tags for each in lake.metadata.stream_rows()] == [["log"]]
    assert lake.metadata.blocks(tag="metrics") == []
    assert packs(lake) == objects, "a repeated block must not write a second object"


def test_repeats_within_a_batch_and_beside_new_blocks(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    known, new = block(log), block(log, payload=payload(33, b"n"))
    lake.commit(Batch([owner, owner], [log, log], [known, replace(known, nb_objects=9), known]))
    lake.commit(Batch([owner], [log], [known, new, new]))
    rows = {row.block_id: row for row in lake.metadata.blocks()}
    assert rows.keys() == {known.block_id, new.block_id}
    assert lake.read_payload(rows[new.block_id]) == new.payload
    assert rows[known.block_id].nb_objects == 1
    written = sum(each.size for each in lake.objects.list("packs"))
    assert written == len(known.payload) + len(new.payload), "known payloads are not written again"


def test_the_same_block_on_many_threads_at_once(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    blocks = [block(log) for _ in range(5)]
    with ThreadPoolExecutor(8) as threads:
        order = random.Random(7)
        jobs = [
            threads.submit(lake.commit, Batch([owner], [log], order.sample(blocks, len(blocks)))) for _ in range(24)
        ]
        for job in jobs:
            job.result()
    rows = lake.metadata.blocks()
    assert sorted(row.block_id for row in rows) == sorted(each.block_id for each in blocks)
    assert set(packs(lake)) == {row.object_key for row in rows}, "packs of nothing but repeats must not stay"
    assert len(lake.metadata.process_rows()) == len(lake.metadata.stream_rows()) == 1


def test_a_watermark_has_seen_everything_before_it(lake: Lake) -> None:
    """Readers poll while writers commit: a block up to a watermark never turns up later."""
    owner = process()
    log = stream(owner.process_id)
    lake.commit(Batch([owner], [log]))

    def write(count: int) -> None:
        for _ in range(count):
            lake.commit(Batch(blocks=[block(log)]))

    seen: list[tuple[int, set[str]]] = []
    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, 12) for _ in range(4)]
        while not all(writer.done() for writer in writers):
            watermark = lake.metadata.watermark()
            seen.append((watermark, {row.block_id for row in lake.metadata.blocks(insert_end=watermark + 1)}))
        for writer in writers:
            writer.result()
    final = lake.metadata.blocks()
    assert len(final) == 48
    assert len({row.insert_time for row in final}) == 48, "every commit has an insert time of its own"
    for watermark, ids in seen:
        assert ids == {row.block_id for row in final if row.insert_time <= watermark}


def test_insert_time_goes_on_when_the_wall_clock_goes_back(lake_backend: LakeSettings) -> None:
    times = iter([1000, 500, 500, 10, 2000, 2000])
    now = [0]

    def clock() -> int:
        return now[0]

    owner = process()
    with Lake.open(lake_backend, clock) as lake:
        stamps = []
        for now[0] in times:
            lake.commit(Batch(processes=[owner]))
            stamps.append(lake.metadata.watermark())
    assert stamps == [1000, 1001, 1002, 1003, 2000, 2001]


def test_texts_that_a_database_would_refuse_are_cut(lake: Lake) -> None:
    owner = process(exe="e\0" * 300, distro="ü" * 300, properties={"k\0ey": "v\0" + "w" * 1000, "nul": "\0"})
    log = stream(owner.process_id, tags=["lo\0g", ""], properties={"\0": "a\0b"})
    lake.commit(Batch([owner], [log]))
    row = lake.metadata.processes([owner.process_id])[owner.process_id]
    assert (row.exe, row.distro) == ("e" * 255, "ü" * 255)
    assert row.properties == {"key": "v" + "w" * 1000, "nul": ""}
    (kept,) = lake.metadata.stream_rows(tag="log")
    assert (kept.tags, kept.properties) == (["log", ""], {"": "ab"})


def test_endless_tags_are_kept_and_harm_nobody(lake: Lake) -> None:
    """PostgreSQL refuses to index long texts: one such stream must not fail the batch for ever."""
    owner = process()
    odd = stream(owner.process_id, tags=["log", "x" * 100_000, *(f"tag {number}" for number in range(1000))])
    lake.commit(Batch([owner], [odd, stream(owner.process_id)], [block(odd)]))
    assert len(lake.metadata.blocks(tag="log")) == 1
    (kept,) = lake.metadata.stream_rows(stream_id=odd.stream_id)
    assert kept.tags == odd.tags
    assert lake.metadata.stream_rows(tag="x" * 100_000) == []


def test_extreme_numbers(lake: Lake) -> None:
    low, high = -(2**63), 2**63 - 1
    owner = process(tsc_frequency=high, start_ticks=low, start_time=low)
    log = stream(owner.process_id)
    odd = block(
        log, begin_time=high, end_time=low, begin_ticks=low, end_ticks=high, object_offset=high, nb_objects=-(2**31)
    )
    lake.commit(Batch([owner], [log], [odd]))
    (row,) = lake.metadata.blocks(event_begin=low)
    assert (row.begin_time, row.end_time, row.begin_ticks, row.end_ticks) == (high, low, low, high)
    assert (row.min_event_time, row.max_event_time) == (low, low + 10**9)


def test_block_filters(lake: Lake) -> None:
    owner, other = process(), process()
    log = stream(owner.process_id, tags=["log"])
    cpu = stream(other.process_id, tags=["cpu", "log2"])
    lake.commit(Batch([owner, other], [log, cpu]))
    made = []
    for position in range(6):
        of = log if position % 2 else cpu
        each = block(of, begin_time=position * 10, end_time=position * 10 + 5, begin_ticks=-position)
        lake.commit(Batch(blocks=[each]))
        made.append(each.block_id)
    rows = lake.metadata.blocks()
    assert [row.block_id for row in rows] == made

    def found(**conditions: object) -> list[int]:
        return [made.index(row.block_id) for row in lake.metadata.blocks(**conditions)]  # type: ignore[arg-type]

    assert found(tag="log") == found(process_id=owner.process_id) == found(stream_id=log.stream_id) == [1, 3, 5]
    assert found(tag="lo") == found(tag="log' OR 1=1") == found(process_id=new_id()) == []
    assert found(insert_begin=rows[2].insert_time, insert_end=rows[4].insert_time) == [2, 3]
    assert found(time_begin=15, time_end=30) == [1, 2, 3]
    assert found(time_begin=6, time_end=9) == []
    assert found(order="event", limit=2) == [5, 4]
    batches = list(lake.metadata.block_record_batches(tag="cpu", batch_rows=2))
    assert [batch.num_rows for batch in batches] == [2, 1]
    assert [made.index(text) for batch in batches for text in batch["block_id"].to_pylist()] == [0, 2, 4]
    assert batches[0]["streams.tags"].to_pylist()[0] == ["cpu", "log2"]
    assert batches[0]["processes.properties"].to_pylist()[0] == '{"version":"1"}'
    assert list(lake.metadata.block_record_batches(tag="none")) == []


def test_process_filters(lake: Lake) -> None:
    owners = [process() for _ in range(3)]
    for owner in owners:
        lake.commit(Batch([owner], [stream(owner.process_id)]))
    log = stream(owners[0].process_id)
    lake.commit(
        Batch(streams=[log], blocks=[block(log, end_ticks=10, end_time=99), block(log, end_ticks=30, end_time=50)])
    )
    lake.commit(Batch(blocks=[block(log, end_ticks=20, end_time=70)]))
    rows = lake.metadata.process_rows()
    assert [row.process_id for row in rows] == [owner.process_id for owner in owners]
    assert (rows[0].last_block_end_ticks, rows[0].last_block_end_time) == (30, 99)
    assert [row.process_id for row in lake.metadata.process_rows(update_begin=rows[2].insert_time)] == [
        owners[0].process_id,
        owners[2].process_id,
    ]
    assert [row.process_id for row in lake.metadata.process_rows(update_end=rows[1].insert_time)] == [
        owners[0].process_id,
        owners[1].process_id,
    ]
    assert len(lake.metadata.stream_rows(process_id=owners[0].process_id)) == 2


def test_vanished_or_cut_objects_are_errors_that_name_them(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    lake.commit(Batch([owner], [log], [block(log), block(log)]))
    first, second = lake.metadata.blocks()
    lake.objects.put(first.object_key, lake.objects.get(first.object_key)[:-1])
    last = max(first, second, key=lambda row: row.payload_offset)
    with pytest.raises(LakeCorrupt, match=rf"block {last.block_id}.*object {last.object_key}"):
        lake.read_payload(last)
    lake.objects.delete([first.object_key])
    with pytest.raises(LakeCorrupt, match=f"object {first.object_key} is missing"):
        lake.read_payloads([first, second])


def test_one_object_per_block_is_readable_too(lake: Lake) -> None:
    """Lakes written by others keep a payload at blobs/<process>/<stream>/<block>."""
    owner = process()
    log = stream(owner.process_id)
    lone = block(log)
    lake.commit(Batch([owner], [log], [lone]))
    (packed,) = lake.metadata.blocks()
    key = f"blobs/{owner.process_id}/{log.stream_id}/{lone.block_id}"
    lake.objects.put(key, lone.payload)
    lake.objects.delete([packed.object_key])
    with lake.metadata._database.write() as connection:
        connection.execute(sa.update(schema.blocks).values(object_key=None, payload_offset=0))
    (row,) = lake.metadata.blocks()
    assert row.object_key == key
    assert lake.read_payload(row) == lone.payload
    assert lake.delete_blocks_before(lake.metadata.watermark() + 1) > 0
    with lake.metadata._database.read() as connection:
        assert connection.execute(sa.select(schema.expiring_objects.c.path)).scalars().all() == [key]


def test_a_batch_that_took_too_long_is_not_committed(lake_backend: LakeSettings) -> None:
    """Else the sweep could delete a pack in the moment in which its rows come."""
    now = [10**18]

    def clock() -> int:
        now[0] += 400 * 10**9
        return now[0]

    owner = process()
    log = stream(owner.process_id)
    with Lake.open(lake_backend, clock) as lake:
        with pytest.raises(LakeUnavailable, match="too long"):
            lake.commit(Batch([owner], [log], [block(log)]))
        assert lake.metadata.process_rows() == []
