"""Repacking: what is left of mostly dead packs moves, whoever reads or deletes meanwhile, and wherever it is killed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from senders import block, payload, process, stream

from micromegas.config import LakeSettings
from micromegas.lake import Lake, LakeUnavailable
from micromegas.wire import Batch, Block, Stream

SECOND = 10**9
HOUR = 3600 * SECOND
START = 1_790_000_000 * SECOND


class Traffic:
    """Packs of one long-lived and several short-lived blocks each; knows what every payload must be."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        owner = process()
        self.kept, self.dropped = stream(owner.process_id), stream(owner.process_id)
        self.payloads: dict[str, bytes] = {}
        self._number = 0
        lake.commit(Batch([owner], [self.kept, self.dropped]))

    def pack(self, kept: int = 1, dropped: int = 4, late: Stream | None = None) -> None:
        """Commit one pack; the block of a `late` stream is pending."""
        blocks: list[Block] = [self._block(self.dropped) for _ in range(dropped)]
        blocks[1:1] = [self._block(self.kept) for _ in range(kept)]
        if late is not None:
            blocks.append(self._block(late))
        self.lake.commit(Batch(blocks=blocks))
        self.payloads |= {each.block_id: each.payload for each in blocks}

    def _block(self, of: Stream) -> Block:
        # No two alike, in bytes or in length.
        self._number += 1
        return block(of, payload=payload(100 + self._number % 7, bytes([self._number % 256])))

    def drop(self, limit: int = 5000) -> None:
        """What retention does to the short-lived ones."""
        cutoff = self.lake.metadata.watermark() + 1
        while self.lake.delete_blocks_of([self.dropped.stream_id], cutoff, limit):
            pass

    def check(self) -> None:
        """Every visible block still has its payload."""
        for row in self.lake.metadata.blocks():
            assert self.lake.read_payload(row) == self.payloads[row.block_id]


def packs(lake: Lake) -> set[str]:
    return {each.path for each in lake.objects.list("packs")}


def repack(lake: Lake) -> None:
    while lake.repack():
        pass


def test_mostly_dead_packs_become_one_and_the_old_ones_go_after_the_grace(lake_backend: LakeSettings) -> None:
    now = [START]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        traffic = Traffic(lake)
        for _ in range(5):
            traffic.pack()
        traffic.pack(kept=3, dropped=2)
        late = stream(process().process_id)
        traffic.pack(late=late)
        traffic.pack(kept=0, dropped=3)
        listed_before = lake.metadata.blocks()
        old = packs(lake)
        assert lake.repack() == 0, "nothing is dead"
        traffic.drop(limit=2)
        repack(lake)
        traffic.check()
        (new,) = packs(lake) - old
        rows = lake.metadata.blocks()
        assert len(rows) == 5 + 3 + 1
        assert len([row for row in rows if row.object_key == new]) == 5 + 1
        assert len({row.object_key for row in rows}) == 2, "the one that is mostly alive stays"
        # Whoever listed the blocks before still finds them, also through the search for objects without rows.
        now[0] += HOUR - SECOND
        lake.sweep_unreferenced(HOUR // 2)
        lake.sweep_expired()
        for row in listed_before:
            assert lake.read_payload(row) == traffic.payloads[row.block_id]
        now[0] += 2 * HOUR
        lake.sweep_expired()
        lake.sweep_unreferenced(HOUR)
        assert packs(lake) == {row.object_key for row in rows}
        traffic.check()
        # The pending block went along.
        lake.commit(Batch([process(late.process_id)], [late]))
        assert len(lake.metadata.blocks()) == 10
        traffic.check()
        assert lake.repack() == 0


def test_what_moved_can_be_dropped_and_moved_again(lake_backend: LakeSettings) -> None:
    now = [START]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        traffic = Traffic(lake)
        for _ in range(6):
            traffic.pack(kept=1, dropped=2)
        traffic.drop()
        repack(lake)
        rows = lake.metadata.blocks()
        assert len({row.object_key for row in rows}) == 1
        # Most of the new pack dies, too.
        with lake.metadata._database.write() as connection:
            lake.metadata._delete_blocks(connection, [row.block_id for row in rows[:4]], now[0] + HOUR)
        repack(lake)
        traffic.check()
        assert len(lake.metadata.blocks()) == 2
        traffic.dropped = traffic.kept
        traffic.drop()
        now[0] += 2 * HOUR
        lake.sweep_expired()
        assert packs(lake) == set()
        assert lake.repack() == 0


class Killed(BaseException):
    """Stands for the death of the process."""


STEPS = ("get_ranges", "put", "move_payloads")


@pytest.mark.parametrize("seed", range(2))
def test_death_at_any_step_harms_nobody(lake_backend: LakeSettings, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    now = [START]
    random = Random(seed)
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        traffic = Traffic(lake)
        dying: list[str] = []

        def fused(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def guarded(*arguments: Any) -> Any:
                if dying == [f"before {name}"]:
                    raise Killed
                result = call(*arguments)
                if dying == [f"after {name}"]:
                    raise Killed
                return result

            return guarded

        for name in STEPS:
            store = lake.metadata if name == "move_payloads" else lake.objects
            monkeypatch.setattr(store, name, fused(name, getattr(store, name)))
        deaths = 0
        for step in [f"{when} {name}" for name in STEPS for when in ("before", "after")]:
            for _ in range(random.randrange(1, 4)):
                traffic.pack()
            traffic.drop()
            dying[:] = [step]
            try:
                lake.repack()
            except Killed:
                deaths += 1
            dying.clear()
            traffic.check()
            now[0] += random.randrange(HOUR // 4)
        assert deaths == 6
        repack(lake)
        traffic.check()
        for _ in range(2):
            now[0] += 3 * HOUR
            lake.sweep_expired()
            lake.sweep_unreferenced(HOUR)
        assert packs(lake) == {row.object_key for row in lake.metadata.blocks()}
        traffic.check()


def test_blocks_that_are_deleted_while_they_are_moved_stay_deleted(
    lake_backend: LakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [START]
    with Lake.open(lake_backend, lambda: now[0]) as lake, Lake.open(lake_backend, lambda: now[0]) as other:
        traffic = Traffic(lake)
        for _ in range(3):
            traffic.pack(kept=2, dropped=9)
        traffic.drop()
        doomed = [row.block_id for row in lake.metadata.blocks()]
        put = lake.objects.put

        def put_while_others_delete(path: str, data: bytes) -> None:
            put(path, data)
            with other.metadata._database.write() as connection:
                other.metadata._delete_blocks(connection, doomed[: len(doomed) // deleted_share], now[0] + HOUR)

        monkeypatch.setattr(lake.objects, "put", put_while_others_delete)
        for deleted_share in (2, 1):
            repack(lake)
            assert len(lake.metadata.blocks()) == len(doomed) - len(doomed) // deleted_share
            traffic.check()
            doomed = [row.block_id for row in lake.metadata.blocks()]
            with other.metadata._database.write() as connection:
                # What is left of the new pack is made to look mostly dead once more.
                other.metadata._note_packs(
                    connection,
                    [row.object_key for row in lake.metadata.blocks()],
                    {row.object_key: 10**9 for row in lake.metadata.blocks()},
                    0,
                )
        now[0] += 3 * HOUR
        lake.sweep_expired()
        lake.sweep_unreferenced(HOUR)
        assert packs(lake) == set()


def test_a_pack_that_is_missing_is_left_and_a_slow_move_is_not_made(
    lake_backend: LakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [START]
    with Lake.open(lake_backend, lambda: now[0]) as lake:
        traffic = Traffic(lake)
        for _ in range(3):
            traffic.pack()
        traffic.drop()
        lost = lake.metadata.blocks()[1]
        lake.objects.delete([lost.object_key])
        put = lake.objects.put

        def slow(path: str, data: bytes) -> None:
            put(path, data)
            now[0] += 11 * 60 * SECOND

        monkeypatch.setattr(lake.objects, "put", slow)
        before = lake.metadata.blocks()
        with pytest.raises(LakeUnavailable, match="took too long"):
            lake.repack()
        assert lake.metadata.blocks() == before
        monkeypatch.setattr(lake.objects, "put", put)
        repack(lake)
        rows = {row.block_id: row for row in lake.metadata.blocks()}
        assert rows.pop(lost.block_id).object_key == lost.object_key
        assert len({row.object_key for row in rows.values()}) == 1
        now[0] += 3 * HOUR
        lake.sweep_expired()
        lake.sweep_unreferenced(HOUR)
        for row in rows.values():
            assert lake.read_payload(row) == traffic.payloads[row.block_id]
