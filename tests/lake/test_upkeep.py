"""Leases, block errors, sweeps and retention: what the daemon leans on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from senders import block, process, stream

from micromegas.config import LakeSettings
from micromegas.lake import Lake, LakeError, LakeUnavailable
from micromegas.lake.objects import LocalObjects
from micromegas.lake.pack import pack_key, pack_key_time
from micromegas.wire import Batch

RACERS = 6
SECOND = 10**9
HOUR = 3600 * SECOND


def test_leases_are_held_by_one(lake_backend: LakeSettings) -> None:
    now = [10**18]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        leases = lake.metadata
        first = leases.acquire_lease("minute", "a", 10 * SECOND)
        assert first is not None
        assert leases.acquire_lease("minute", "b", 10 * SECOND) is None
        assert leases.acquire_lease("hour", "b", 10 * SECOND) is not None
        now[0] += 9 * SECOND
        assert leases.renew_lease("minute", first, 10 * SECOND)
        now[0] += 9 * SECOND
        assert leases.acquire_lease("minute", "b", 10 * SECOND) is None
        now[0] += 2 * SECOND
        second = leases.acquire_lease("minute", "b", 10 * SECOND)
        assert second is not None
        assert second > first
        assert not leases.renew_lease("minute", first, 10 * SECOND)
        leases.release_lease("minute", first)
        assert leases.acquire_lease("minute", "a", 10 * SECOND) is None
        leases.release_lease("minute", second)
        third = leases.acquire_lease("minute", "a", 10 * SECOND)
        assert third is not None
        assert third > second, "a token is never handed out again, not even after a release"
        own = leases.acquire_lease("minute", "a", SECOND)
        assert own is not None
        assert own > third


def test_a_race_for_a_lease_has_one_winner(lake: Lake) -> None:
    starters = Barrier(RACERS)

    def race(racer: int) -> list[int | None]:
        tokens = []
        for number in range(10):
            starters.wait()
            tokens.append(lake.metadata.acquire_lease(f"tier {number}", f"daemon {racer}", HOUR))
        return tokens

    with ThreadPoolExecutor(RACERS) as threads:
        for tokens in zip(*threads.map(race, range(RACERS)), strict=True):
            assert len([token for token in tokens if token is not None]) == 1


def test_block_errors_are_listed_replaced_and_cleared(lake: Lake) -> None:
    owner = process()
    log = stream(owner.process_id)
    blocks = [block(log) for _ in range(3)]
    ids = sorted(each.block_id for each in blocks)
    lake.commit(Batch([owner], [log], blocks))
    record = lake.metadata.record_block_errors
    record("log_entries", [(ids[0], "bad\0 frame", 1), (ids[1], "cut", 1), (ids[1], "cut again", 1)])
    record("log_entries", [(ids[0], "worse", 2)])
    record("measures", [(ids[0], "other", 2)])
    record("measures", [])
    found = [(each.view_set, each.block_id, each.error, each.decoder_version) for each in lake.metadata.block_errors()]
    assert found == [
        ("log_entries", ids[0], "worse", 2),
        ("log_entries", ids[1], "cut again", 1),
        ("measures", ids[0], "other", 2),
    ]
    lake.metadata.clear_block_errors("log_entries", ids)
    assert [each.view_set for each in lake.metadata.block_errors()] == ["measures"]


def test_packs_without_rows_are_swept_others_never(lake_backend: LakeSettings) -> None:
    now = [1_790_000_000 * SECOND]
    owner = process()
    log = stream(owner.process_id)
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        lake.commit(Batch([owner], [log], [block(log)]))
        leaked = [pack_key(now[0]), pack_key(now[0] - 40 * HOUR)]
        for key in leaked:
            lake.objects.put(key, b"left by a killed writer")
        lake.objects.put("packs/notes.txt", b"not ours")
        now[0] += HOUR // 2
        young = pack_key(now[0])
        lake.objects.put(young, b"its row may still come")
        now[0] += HOUR - 1
        assert lake.sweep_unreferenced(HOUR) == 2
        kept = {each.path for each in lake.objects.list("packs")}
        assert kept == {lake.metadata.blocks()[0].object_key, young, "packs/notes.txt"}
        assert lake.sweep_unreferenced(HOUR) == 0
        now[0] += 50 * HOUR
        assert lake.sweep_unreferenced(HOUR) == 1
        assert lake.read_payload(lake.metadata.blocks()[0])
        with pytest.raises(LakeError, match="still get their rows"):
            lake.sweep_unreferenced(SECOND)


def test_pack_keys_sort_by_time() -> None:
    base = 1_790_000_000 * SECOND
    keys = [pack_key(base + step * 10**6) for step in range(50)]
    assert keys == sorted(keys)
    assert len({pack_key(base) for _ in range(1000)}) == 1000
    assert pack_key_time(keys[7]) == base + 7 * 10**6
    assert pack_key_time("packs/2026-01-01/readme") is None


def test_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    (tmp_path / "objects" / "incoming" / "half").write_bytes(b"half")
    changed = (tmp_path / "objects" / "incoming" / "half").stat().st_mtime
    assert objects.sweep_incoming(changed - 1) == 0
    assert objects.sweep_incoming(changed + 1) == 1


def test_retention_deletes_in_steps_and_keeps_what_is_shared(lake_backend: LakeSettings) -> None:
    now = [1_790_000_000 * SECOND]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        old, alive = process(), process()
        old_log, alive_log = stream(old.process_id), stream(alive.process_id)
        lake.commit(Batch([old, alive], [old_log, alive_log], [block(old_log) for _ in range(3)]))
        orphan = block(stream(process().process_id))
        lake.commit(Batch(blocks=[orphan]))
        lake.metadata.record_block_errors("log_entries", [(orphan.block_id, "x", 1)])
        now[0] += 100 * HOUR
        cutoff = now[0]
        kept = block(alive_log)
        lake.commit(Batch(blocks=[kept]))
        steps = []
        while (deleted := lake.delete_blocks_before(cutoff, limit=2)) > 0:
            steps.append(deleted)
        assert sum(steps) == 4 + 2, "four blocks, then the idle stream and process"
        assert [row.block_id for row in lake.metadata.blocks()] == [kept.block_id]
        assert [row.process_id for row in lake.metadata.process_rows()] == [alive.process_id]
        assert [row.stream_id for row in lake.metadata.stream_rows(tag="log")] == [alive_log.stream_id]
        assert lake.metadata.block_errors() == []
        assert lake.sweep_expired() == 0, "running queries may still read the payloads"
        now[0] += 2 * HOUR
        assert lake.sweep_expired() == 2
        assert [each.path for each in lake.objects.list("packs")] == [lake.metadata.blocks()[0].object_key]


def test_retention_keeps_the_quiet_streams_of_a_live_process(lake_backend: LakeSettings) -> None:
    """A sender announces a stream once: what it says after a long silence must still find it."""
    now = [1_790_000_000 * SECOND]
    owner = process()
    busy, quiet = stream(owner.process_id), stream(owner.process_id)
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        lake.commit(Batch([owner], [busy, quiet], [block(busy), block(quiet)]))
        now[0] += 100 * HOUR
        cutoff = now[0]
        lake.commit(Batch(blocks=[block(busy)]))
        while lake.delete_blocks_before(cutoff) > 0:
            pass
        late = block(quiet)
        lake.commit(Batch(blocks=[late]))
        assert late.block_id in {row.block_id for row in lake.metadata.blocks()}


def test_retention_keeps_a_pack_that_a_younger_block_shares(lake_backend: LakeSettings) -> None:
    """A block that was pending is stamped later than its neighbours in the pack."""
    now = [1_790_000_000 * SECOND]
    owner = process()
    log, late_log = stream(owner.process_id), stream(owner.process_id)
    late = block(late_log)
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        lake.commit(Batch([owner], [log], [block(log), late]))
        cutoff = lake.metadata.watermark() + 1
        lake.commit(Batch(streams=[late_log]))
        assert lake.delete_blocks_before(cutoff) > 0
        now[0] += 10 * HOUR
        assert lake.sweep_expired() == 0
        (row,) = lake.metadata.blocks()
        assert lake.read_payload(row) == late.payload


def test_objects_face(lake: Lake, tmp_path: Path) -> None:
    objects = lake.objects
    objects.put("views/a/b.parquet", b"0123456789")
    assert objects.get("views/a/b.parquet") == b"0123456789"
    assert objects.get_ranges("views/a/b.parquet", [8, 0, 3], [2, 1, 4]) == [b"89", b"0", b"3456"]
    local = tmp_path / "local"
    local.write_bytes(b"x" * 100_000)
    assert objects.put_file(local, "views/a/c.parquet") == 100_000
    assert local.exists()
    assert objects.size("views/a/c.parquet") == 100_000
    assert objects.size("views/a/d.parquet") is None
    assert sorted((each.path, each.size) for each in objects.list("views/a")) == [
        ("views/a/b.parquet", 10),
        ("views/a/c.parquet", 100_000),
    ]
    assert list(objects.list("nothing/here")) == []
    objects.delete(["views/a/b.parquet", "views/a/never-was", "views/a/c.parquet"])
    assert list(objects.list("views")) == []
    store = objects.datafusion_store()
    assert objects.url_of("views/x").startswith(f"{store.scheme}://")
    assert "secret" not in repr(store)


def test_local_writes_are_synced_in_the_order_that_a_power_cut_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def recorded(what: int | Path, *rest: object) -> object:
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
            calls.append((name, path))
            return real(what, *rest)

        monkeypatch.setattr(os, name, recorded)

    for name in ("fsync", "fdatasync", "rename"):
        record(name)
    objects = LocalObjects(tmp_path / "objects")
    calls.clear()
    objects.put("packs/day/one", b"data")
    folder = str(tmp_path / "objects")
    assert [(name, "incoming" if "/incoming/" in path else path.removeprefix(folder)) for name, path in calls] == [
        ("fsync", ""),
        ("fsync", "/packs"),
        ("fdatasync", "incoming"),
        ("rename", "incoming"),
        ("fsync", "/packs/day"),
    ]


@pytest.mark.parametrize("key", ["../out", "a//b", "/etc/passwd", "a/./b", "", "a/\0"])
def test_keys_never_lead_out_of_the_folder(tmp_path: Path, key: str) -> None:
    objects = LocalObjects(tmp_path / "objects")
    with pytest.raises(ValueError, match="not a relative path"):
        objects.put(key, b"")


def test_a_failed_local_write_leaves_nothing(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    objects.put("taken/by/a-file", b"")
    with pytest.raises(LakeUnavailable, match="taken/by/a-file/below"):
        objects.put("taken/by/a-file/below", b"data")
    with pytest.raises(LakeUnavailable):
        objects.put_file(tmp_path / "missing", "some/where")
    assert list((tmp_path / "objects" / "incoming").iterdir()) == []


def test_secrets_are_not_printed(lake_backend: LakeSettings) -> None:
    assert "test-secret" not in repr(lake_backend)
    settings = LakeSettings(database_url="postgresql://me:hunter2@host/db", object_store="file:///x")
    assert "hunter2" not in repr(settings)
