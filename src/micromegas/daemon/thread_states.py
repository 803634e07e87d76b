"""Leaves states of long threads behind, so that a look at their spans begins near the time that it asks for.

It must never make rows: those of most threads are never asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from micromegas.daemon.insert_clock import Clock
from micromegas.lake import Lake, LakeUnavailable
from micromegas.query import QueryError
from micromegas.query.just_in_time import JustInTime
from micromegas.views.block_decoding import decoded_from
from micromegas.views.thread_spans import THREAD_SPANS

# Decoding less than this for a look takes some hundredths of a second, and states of short threads would be many.
MIN_OBJECTS = 1024 * 1024

logger = logging.getLogger(__name__)


class ThreadStates:
    """The partitions without rows of threads that sent lately."""

    def __init__(self, lake: Lake, just_in_time: JustInTime, clock: Clock, lately_s: float) -> None:
        self._lake = lake
        self._just_in_time = just_in_time
        self._clock = clock
        self._lately_ns = int(lately_s * 1e9)

    def advance(self, keep_going: Callable[[], bool]) -> int:
        """Go on from the last partition of each thread that sent lately and has `MIN_OBJECTS` events behind it; returns
        how many threads failed. Raises `LakeUnavailable` when a store doesn't answer.

        A thread that fails is logged and tried again by a later call, as long as it sends. Of one that sent while no
        daemon was there, the first look leaves the states.
        """
        failures = 0
        streams = self._lake.metadata.long_streams(
            decoded_from(THREAD_SPANS).stream_tag, self._clock() - self._lately_ns, MIN_OBJECTS
        )
        for stream_id in streams:
            if not keep_going():
                break
            try:
                if self._behind(stream_id) >= MIN_OBJECTS:
                    self._just_in_time.advance(THREAD_SPANS, stream_id, keep_going)
            except LakeUnavailable:
                raise
            except QueryError as error:
                # It may not go on, or others keep building: what was done stays.
                logger.debug("thread %s: %s", stream_id, error)
            except Exception:
                logger.exception("thread %s: its spans were not followed", stream_id)
                failures += 1
        return failures

    def _behind(self, stream_id: str) -> int:
        """How many events came since the last partition."""
        partitions = self._lake.metadata.partitions(THREAD_SPANS.name, stream_id)
        covered = max((each.end_insert_time for each in partitions), default=0)
        return self._lake.metadata.count_events(stream_id=stream_id, insert_begin=covered)
