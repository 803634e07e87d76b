"""The daemon: runs every kind of its work at its rhythm, in threads. One daemon covers what is new, and keeps house,
while it holds the lease of that; a backlog and the merges are shared, piece by piece.

It must never keep anything in memory that a restart would miss: what is to be done is read from the lake each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from micromegas.config import DaemonSettings
from micromegas.daemon.clockless_blocks import ClocklessBlocks
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.housekeeping import Housekeeping
from micromegas.daemon.insert_clock import HOUR, Clock, floor_to, retention_begin
from micromegas.daemon.lease import Lease
from micromegas.daemon.merge_buckets import TIERS, Tier
from micromegas.daemon.merging import Merging
from micromegas.daemon.older_partitions import OlderPartitions
from micromegas.daemon.reduced_partitions import ReducedPartitions
from micromegas.daemon.retention import Select
from micromegas.daemon.span_states import SpanStates
from micromegas.lake import Lake, LakeError, LakeUnavailable
from micromegas.query import Reductions
from micromegas.query.build_leases import BuildLeases
from micromegas.query.just_in_time import JustInTime
from micromegas.views.catalogue import GLOBAL_VIEW_SETS, VIEW_SETS
from micromegas.views.view_set import ViewSet

MAX_PAUSE_S = 30.0
# How many ticks lie between two looks for something to merge.
MERGE_TICKS = {"minute": 5, "hour": 30, "day": 60}
# And between two looks for what nobody covered while it was new.
BACKLOG_TICKS = 10
# And between two looks for partitions of older schemas, or without the rows of blocks that had no clock, which can wait
# for everything else.
OLDER_TICKS = 10
# And between two looks for threads and processes whose spans nobody asked for since long.
SPAN_TICKS = 60

logger = logging.getLogger(__name__)

KeepGoing = Callable[[], bool]
"""Tells blocking work whether it may begin another step."""


@dataclass(frozen=True, slots=True)
class Job:
    """A kind of work: `run` blocks, returns how many of its parts failed, and ends early once it may not go on.

    Without a `lease` every daemon does it, and claims the parts that it works on.
    """

    name: str
    lease: Lease | None
    interval_s: float
    run: Callable[[KeepGoing], int]


class Daemon:
    """Materializes the global views made of blocks and those defined by SQL, merges their partitions, applies the
    retention and sweeps.

    Any number of daemons may run on one lake. `run` goes on until `stop`; the lake stays open and is the caller's.
    """

    def __init__(
        self,
        lake: Lake,
        settings: DaemonSettings,
        clock: Clock | None = None,
        select: Select | None = None,
        reductions: Reductions | None = None,
    ) -> None:
        """`select` answers the predicates of the retention policies, where there are any. Without `reductions` the
        views defined by SQL are left to other daemons."""
        self._lake = lake
        self._reductions = reductions
        self._settings = settings
        self._clock = clock or lake.clock
        self._select = select
        self._builds = BuildLeases(lake, settings.lease_ttl_s)
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4()}"
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    async def run(self) -> None:
        """Work until `stop` is called (or the task is cancelled), then finish the steps in progress."""
        # What killed processes left on the local disk is wiped, even if nothing is to be made.
        await asyncio.to_thread(self._lake.scratch.prepare)
        view_sets = [view_set for view_set in GLOBAL_VIEW_SETS if view_set.decoded is not None]
        newest = {view_set.name: self._lease(f"{view_set.name}/second") for view_set in view_sets}
        housekeeping = self._lease("housekeeping")
        jobs = [job for view_set in view_sets for job in self._view_jobs(view_set, newest[view_set.name])]
        if self._reductions is not None:
            for view_set in self._reductions.view_sets:
                partitions = ReducedPartitions(self._lake, view_set, self._reductions, self._clock, self._builds)
                jobs += self._reduction_jobs(partitions)
        cleaner = Housekeeping(self._lake, self._settings, self._clock, self._select)
        jobs.append(Job("housekeeping", housekeeping, self._settings.sweep_interval_s, cleaner.run))
        older = OlderPartitions(self._lake, VIEW_SETS.values())
        jobs.append(Job("older partitions", housekeeping, self._settings.tick_s * OLDER_TICKS, older.rewrite))
        clockless = ClocklessBlocks(self._lake, VIEW_SETS, self._clock)
        jobs.append(Job("clockless blocks", housekeeping, self._settings.tick_s * OLDER_TICKS, clockless.retry))
        followers = JustInTime(self._lake, math.inf, self._settings.lease_ttl_s)
        every_s = self._settings.tick_s * SPAN_TICKS
        states = SpanStates(self._lake, followers, self._clock, lately_s=10 * every_s)
        jobs.append(Job("span states", housekeeping, every_s, states.advance))
        keepers = [*newest.values(), housekeeping]
        self._done.clear()
        # Each job and each lease has a thread, so that long work never makes a lease run out.
        threads = ThreadPoolExecutor(len(jobs) + len(keepers), thread_name_prefix="daemon")
        tasks = [asyncio.create_task(self._keep(lease, threads)) for lease in keepers]
        tasks += [asyncio.create_task(self._repeat(job, threads)) for job in jobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            # A cancelled task must not leave threads behind that go on with the lake.
            self._stopping.set()
            await asyncio.shield(asyncio.create_task(self._finish(tasks, threads, keepers, followers)))

    async def stop(self) -> None:
        """Begin nothing new and wait until the steps in progress are through; may be called at any time."""
        self._stopping.set()
        await self._done.wait()

    async def _finish(
        self,
        tasks: list[asyncio.Task[None]],
        threads: ThreadPoolExecutor,
        keepers: list[Lease],
        followers: JustInTime,
    ) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        # Of cancelled tasks the threads may still be at work, and renew what is to be released.
        await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(followers.close)
        for lease in keepers:
            with contextlib.suppress(LakeError):
                await asyncio.to_thread(lease.release)
        self._done.set()

    def _lease(self, name: str) -> Lease:
        return Lease(self._lake.metadata, f"daemon/{name}", self._owner, self._settings.lease_ttl_s, self._clock)

    def _view_jobs(self, view_set: ViewSet, newest: Lease) -> list[Job]:
        fresh = FreshPartitions(self._lake, view_set, self._clock)
        shared = FreshPartitions(self._lake, view_set, self._clock, self._builds)

        def kept_from() -> int:
            days = self._settings.policies.derived_days(view_set.name, self._settings.retention_days)
            return retention_begin(self._clock(), days)

        def newest_from() -> int:
            return max(kept_from(), floor_to(self._clock(), HOUR) - HOUR)

        def cover_newest(keep_going: KeepGoing) -> int:
            return fresh.cover(newest_from(), keep_going)

        def cover_backlog(keep_going: KeepGoing) -> int:
            return shared.cover(kept_from(), keep_going, until=newest_from())

        tick = self._settings.tick_s
        jobs = [
            Job(f"{view_set.name}/second", newest, tick, cover_newest),
            Job(f"{view_set.name}/backlog", None, tick * BACKLOG_TICKS, cover_backlog),
        ]
        for tier in TIERS:
            merging = Merging(self._lake, view_set, tier, self._clock, self._builds)
            jobs.append(Job(f"{view_set.name}/{tier.name}", None, tick * MERGE_TICKS[tier.name], merging.merge))
        return jobs

    def _reduction_jobs(self, partitions: ReducedPartitions) -> list[Job]:
        def cover(keep_going: KeepGoing) -> int:
            days = self._settings.policies.derived_days(partitions.name, self._settings.retention_days)
            return partitions.cover(retention_begin(self._clock(), days), keep_going)

        def merge(tier: Tier) -> Callable[[KeepGoing], int]:
            return lambda keep_going: partitions.merge(tier, keep_going)

        tick = self._settings.tick_s
        jobs = [Job(f"{partitions.name}/minute", None, tick * MERGE_TICKS["minute"], cover)]
        jobs.append(Job(f"{partitions.name}/mend", None, self._settings.sweep_interval_s, partitions.mend))
        for tier in partitions.tiers:
            jobs.append(Job(f"{partitions.name}/{tier.name}", None, tick * MERGE_TICKS[tier.name], merge(tier)))
        return jobs

    async def _keep(self, lease: Lease, threads: ThreadPoolExecutor) -> None:
        """Hold a lease, or wait for it, until the daemon stops."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                await loop.run_in_executor(threads, lease.refresh)
            except LakeError as error:
                logger.warning("lease %s: %s", lease.name, error)
            await self._pause(self._settings.lease_ttl_s / 3)

    async def _repeat(self, job: Job, threads: ThreadPoolExecutor) -> None:
        """Do a job at its rhythm as long as its lease is held; after failures at longer and longer intervals."""
        loop = asyncio.get_running_loop()
        pause_s = job.interval_s
        while not self._stopping.is_set():
            if job.lease is not None and not job.lease.held:
                # Another daemon works, or the first refresh is under way.
                await self._pause(min(job.interval_s, self._settings.tick_s))
                continue
            failures = await loop.run_in_executor(threads, self._run_once, job)
            pause_s = max(job.interval_s, min(2 * pause_s, MAX_PAUSE_S)) if failures else job.interval_s
            await self._pause(pause_s)

    def _run_once(self, job: Job) -> int:
        try:
            return job.run(lambda: not self._stopping.is_set() and (job.lease is None or job.lease.held))
        except LakeUnavailable as error:
            logger.warning("%s: %s", job.name, error)
        except BaseException:
            # A panic of native code is no `Exception`, and is no reason to end the other jobs either.
            logger.exception("%s failed", job.name)
        return 1

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
