"""A program to be killed: everything that daemons and administrators do to one lake, all at once and without pause."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from ctypes import c_int64
from functools import partial
from multiprocessing.connection import Connection
from random import Random

from micromegas.config import DaemonSettings, LakeSettings, RetentionPolicies, StreamPolicy
from micromegas.daemon.administration import Administration, OrderRefused
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.housekeeping import Housekeeping
from micromegas.daemon.insert_clock import HOUR, MINUTE, floor_to, retention_begin
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.lake import Lake, LakeUnavailable, PartitionConflict
from micromegas.lake.objects import LocalObjects
from micromegas.query.build_leases import BuildLeases
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.partition_writer import InsertRange
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

VIEWS = (LOG_ENTRIES, MEASURES)
DEFAULT_DAYS = 4
SETTINGS = DaemonSettings(
    retention_days=DEFAULT_DAYS,
    policies=RetentionPolicies((StreamPolicy("measures", 2, tag="metrics"),), {"log_entries": 6}),
)


def jumping_clock(offset: c_int64) -> Callable[[], int]:
    """The time, and what it was set forward by (ns)."""
    return lambda: time.time_ns() + offset.value


def kept_from(view_set: ViewSet, clock: Callable[[], int]) -> int:
    return retention_begin(clock(), SETTINGS.policies.derived_days(view_set.name, DEFAULT_DAYS))


def work_on_everything(settings: LakeSettings, offset: c_int64, seed: int, working: Connection) -> None:
    """Main function of the process; tells `working` once the first pass of everything is through."""
    clock = jumping_clock(offset)
    random = Random(seed)
    # Files carry the time of the machine, by which those being written would all be of last week.
    LocalObjects.sweep_incoming = lambda *_: 0  # type: ignore[method-assign]
    with Lake.open(settings, clock) as lake:
        leases = BuildLeases(lake, 5.0)
        works: list[Callable[[], object]] = [lambda: Housekeeping(lake, SETTINGS, clock).run(lambda: True)]
        for view_set in VIEWS:
            works.append(partial(_cover, lake, view_set, clock, leases))
            works += [partial(Merging(lake, view_set, tier, clock, leases).merge, lambda: True) for tier in TIERS]
        works.append(lambda: _order(lake, clock, random))

        def forever(work: Callable[[], object], first: threading.Event) -> None:
            while True:
                try:
                    work()
                except (LakeUnavailable, PartitionConflict, OrderRefused):
                    pass
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                first.set()

        events = [threading.Event() for _ in works]
        for work, event in zip(works, events, strict=True):
            threading.Thread(target=forever, args=(work, event)).start()
        for event in events:
            event.wait()
        working.send("working")
        threading.Event().wait()


def _cover(lake: Lake, view_set: ViewSet, clock: Callable[[], int], leases: BuildLeases) -> None:
    FreshPartitions(lake, view_set, clock, leases).cover(kept_from(view_set, clock), lambda: True)


def _order(lake: Lake, clock: Callable[[], int], random: Random) -> None:
    """What an administrator might come to think of, about the last hours, of which all blocks are there."""
    orders = Administration(lake, clock)
    end = floor_to(clock(), HOUR) - random.randrange(4) * HOUR
    recent = InsertRange(end - random.randrange(1, 8) * HOUR, end)
    view_set = random.choice(VIEWS).name
    step = random.choice([HOUR, 2 * HOUR, 7 * MINUTE])
    match random.randrange(3):
        case 0:
            list(orders.materialize(view_set, recent, step, lambda: True))
        case 1:
            list(orders.regenerate(view_set, recent, step, lambda: True))
        case _:
            list(orders.retire(view_set, GLOBAL_INSTANCE, recent))
