"""A program to be killed: covers, merges and reduces views of a lake without pause, at a clock that runs fast."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.daemon.reduced_partitions import ReducedPartitions
from micromegas.lake import Lake, LakeUnavailable
from micromegas.query import QueryEngine
from micromegas.query.build_leases import BuildLeases
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.views.measures import MEASURES


def fast_clock(begin: int, speed: int) -> Callable[[], int]:
    """A clock that stood at `begin` (ns) at that time, and is `speed` times as fast ever since."""
    return lambda: begin + (time.time_ns() - begin) * speed


def work_without_pause(settings: LakeSettings, begin: int, speed: int, working: Connection) -> None:
    """Main function of the process; tells `working` once the first pass of everything is through."""
    clock = fast_clock(begin, speed)
    with Lake.open(settings, clock) as lake:

        def forever(work: Callable[[Callable[[], bool]], int], first: threading.Event) -> None:
            while True:
                try:
                    work(lambda: True)
                except LakeUnavailable:
                    traceback.print_exc()
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                first.set()

        # By the fast clock they run out between two renewals, now and then: a claim may be lost at any time.
        leases = BuildLeases(lake, 60.0)
        events: list[threading.Event] = []
        for view_set in (LOG_ENTRIES, MEASURES):
            fresh = FreshPartitions(lake, view_set, clock, leases)
            works = [lambda keep_going, fresh=fresh: fresh.cover(0, keep_going)]
            works += [Merging(lake, view_set, tier, clock, leases).merge for tier in TIERS]
            for work in works:
                events.append(threading.Event())
                threading.Thread(target=forever, args=(work, events[-1])).start()
        engine = QueryEngine(lake, QuerySettings(memory_bytes=64 * 1024 * 1024, statement_timeout_s=60.0))
        stats = ReducedPartitions(lake, LOG_STATS, engine.reductions, clock)
        reductions = [lambda keep_going: stats.cover(0, keep_going)]
        reductions += [lambda keep_going, tier=tier: stats.merge(tier, keep_going) for tier in stats.tiers]
        for work in reductions:
            events.append(threading.Event())
            threading.Thread(target=forever, args=(work, events[-1])).start()
        for event in events:
            event.wait()
        working.send("working")
        threading.Event().wait()
