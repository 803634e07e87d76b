"""Rounds in which busy processes are killed while telemetry comes in, days pass in between; and what must hold then."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ctypes import c_int64
from random import Random

from daemon.busy_upkeep import SETTINGS, VIEWS, jumping_clock, kept_from, work_on_everything
from daemon.telemetry import Telemetry, always, global_partitions, needed_objects, objects_of, rows_of

from micromegas.config import LakeSettings
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.housekeeping import Housekeeping
from micromegas.daemon.insert_clock import DAY, HOUR, SECOND
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.lake import Lake
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.view_set import ViewSet

START_S = 120.0
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["micromegas.daemon", "micromegas.query"])


class UpkeepRounds:
    """Use as a context manager; `run`, then `check`."""

    def __init__(self, settings: LakeSettings, seed: int) -> None:
        self._settings = settings
        self._random = Random(seed)
        # Without a lock: one that a killed process holds is held for ever.
        self._offset = PROCESSES.RawValue(c_int64, 0)
        self._clock = jumping_clock(self._offset)
        self._opened = ExitStack()
        self._lake = self._opened.enter_context(Lake.open(settings, self._clock))
        self._telemetry = Telemetry(self._lake, seed)
        self._inserted: dict[str, int] = {}
        self._payloads: dict[str, bytes] = {}

    def __enter__(self) -> UpkeepRounds:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def sent(self) -> int:
        return len(self._inserted)

    def run(self, rounds: int, processes: int = 2) -> None:
        for _ in range(rounds):
            self._round(processes)
            # By then everything is in partitions: what is deleted from now on must stay in them.
            self._settle()
            self._check()
            self._offset.value += self._random.choice([HOUR // 3, 5 * HOUR, DAY])

    def _round(self, processes: int) -> None:
        listening, killed = [], []
        for _ in range(processes):
            hears, tells = PROCESSES.Pipe(duplex=False)
            arguments = (self._settings, self._offset, self._random.randrange(2**32), tells)
            process = PROCESSES.Process(target=work_on_everything, args=arguments)
            process.start()
            tells.close()
            listening.append(hears)
            killed.append(process)
        ended = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(self._send, ended)
            try:
                for hears in listening:
                    assert hears.poll(START_S), "a process did not get through its first pass"
                    assert hears.recv() == "working"
                time.sleep(self._random.uniform(0, 1.0))
            finally:
                failed = [process for process in killed if not process.is_alive()]
                for process in killed:
                    process.kill()
                    process.join()
                ended.set()
            assert not failed, "a process ended by itself"
            sending.result()

    def _send(self, ended: threading.Event) -> None:
        while True:
            for send in (self._telemetry.send_logs, self._telemetry.send_values):
                sent = send()
                block = self._lake.metadata.block(sent.block_id)
                assert block is not None
                self._inserted[block.block_id] = block.insert_time
                self._payloads[block.block_id] = sent.payload
            if ended.wait(0.05):
                return

    def _settle(self) -> None:
        for view_set in VIEWS:
            fresh = FreshPartitions(self._lake, view_set, self._clock)
            assert fresh.cover(kept_from(view_set, self._clock), always) == 0

    def _check(self) -> None:
        """Each row of each block that was ever sent is in its partition once, whether the block is there or not."""
        for view_set in VIEWS:
            self._check_view(view_set)
        for row in self._lake.metadata.blocks():
            assert self._lake.read_payload(row) == self._payloads[row.block_id]
        assert self._lake.metadata.block_errors() == []

    def _check_view(self, view_set: ViewSet) -> None:
        sent = self._telemetry.logs if view_set is LOG_ENTRIES else self._telemetry.values
        column = "msg" if view_set is LOG_ENTRIES else "value"
        partitions = global_partitions(self._lake, view_set)
        for before, after in itertools.pairwise(partitions):
            assert before.end_insert_time <= after.begin_insert_time, "partitions overlap"
        tail = {block_id: self._inserted[block_id] for block_id in sent}
        for partition in partitions:
            table = rows_of(self._lake, partition)
            found: Counter[tuple[str, str]] = Counter()
            if table.num_rows:
                texts = [str(value) for value in table[column].to_pylist()]
                found = Counter(zip(table["block_id"].to_pylist(), texts, strict=True))
            inside = [
                block_id
                for block_id, insert_time in tail.items()
                if partition.begin_insert_time <= insert_time < partition.end_insert_time
            ]
            assert found == Counter((block_id, text) for block_id in inside for text in sent[block_id])
            for block_id in inside:
                del tail[block_id]
        present = {block.block_id for block in self._lake.metadata.blocks()}
        begin = kept_from(view_set, self._clock)
        lost = [block_id for block_id, insert_time in tail.items() if insert_time >= begin and block_id not in present]
        assert not lost, f"{view_set.name}: {len(lost)} blocks are neither there nor in partitions"

    def finish(self) -> None:
        """Days later, nothing is left of what was killed; raises `AssertionError` where something is."""
        self._check()
        self._offset.value += 2 * HOUR
        self._settle()
        for view_set in VIEWS:
            for tier in TIERS:
                assert Merging(self._lake, view_set, tier, self._clock).merge(always) == 0
        assert Housekeeping(self._lake, SETTINGS, self._clock).run(always) == 0
        self._check()
        for _ in range(2):
            # Beyond the time that a killed writer's file is waited for.
            self._offset.value += 8 * HOUR
            while self._lake.sweep_expired():
                pass
            self._lake.sweep_unreferenced(HOUR)
        assert objects_of(self._lake) == needed_objects(self._lake)
        today = self._clock() // DAY * DAY
        oldest = min((block.insert_time for block in self._lake.metadata.blocks(tag="metrics")), default=today)
        assert oldest >= today - 3 * DAY - SECOND
