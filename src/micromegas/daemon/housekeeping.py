"""Forgets telemetry beyond the horizon, and deletes the objects that no row needs any more.

It must never delete an object before the rows that point to it are gone, nor anything inside of the horizon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from micromegas.config import DaemonSettings
from micromegas.daemon.insert_clock import SECOND, Clock
from micromegas.daemon.retention import Retention, Select
from micromegas.lake import Lake, LakeUnavailable

OBJECTS_PER_STEP = 1000

logger = logging.getLogger(__name__)


class Housekeeping:
    """Retention and sweeps, in steps of one short transaction each."""

    def __init__(self, lake: Lake, settings: DaemonSettings, clock: Clock, select: Select | None = None) -> None:
        self._lake = lake
        self._settings = settings
        self._retention = Retention(lake, settings, clock, select)

    def run(self, keep_going: Callable[[], bool]) -> int:
        """Do all that is due; returns how many kinds of work failed. One that fails doesn't stop the others."""
        failures = 0
        # Blocks first: one without a partition would be decoded again for a query, a partition without blocks is fine.
        for work in (
            self._retention.delete_old_blocks,
            self._retention.retire_old_partitions,
            self._repack,
            self._sweep_expired,
            self._sweep_unreferenced,
        ):
            if not keep_going():
                break
            try:
                work(keep_going)
            except LakeUnavailable:
                raise
            except Exception:
                logger.exception("housekeeping: %s failed", work.__name__.strip("_"))
                failures += 1
        return failures

    def _repack(self, keep_going: Callable[[], bool]) -> None:
        while keep_going() and self._lake.repack():
            pass

    def _sweep_expired(self, keep_going: Callable[[], bool]) -> None:
        while keep_going() and self._lake.sweep_expired(OBJECTS_PER_STEP) == OBJECTS_PER_STEP:
            pass

    def _sweep_unreferenced(self, _keep_going: Callable[[], bool]) -> None:
        deleted = self._lake.sweep_unreferenced(int(self._settings.sweep_age_s * SECOND))
        if deleted:
            logger.info("housekeeping: %d objects of killed writers deleted", deleted)
