"""A program that opens a lake together with others and writes to it, for tests with several processes."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier

from senders import block, process, stream

from micromegas.config import LakeSettings
from micromegas.lake import Lake
from micromegas.wire import Batch


def open_and_write(settings: LakeSettings, starters: Barrier, count: int) -> None:
    """Wait for the others, open the lake, then commit `count` blocks one by one."""
    starters.wait()
    with Lake.open(settings) as lake:
        owner = process()
        log = stream(owner.process_id)
        for _ in range(count):
            lake.commit(Batch([owner], [log], [block(log)]))
