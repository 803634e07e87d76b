"""Leaves states of long threads and processes behind, so that a look at their spans begins near the time that it asks
for.

It must never make rows: those of most are never asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from micromegas.daemon.insert_clock import Clock
from micromegas.lake import Lake, LakeUnavailable
from micromegas.query import QueryError
from micromegas.query.just_in_time import JustInTime
from micromegas.views.async_spans import ASYNC_SPANS
from micromegas.views.block_decoding import blocks_of, decoded_from
from micromegas.views.net_spans import NET_SPANS
from micromegas.views.thread_spans import THREAD_SPANS
from micromegas.views.view_set import ViewSet

# Decoding less than this for a look takes some hundredths of a second, and states of short threads would be many.
MIN_OBJECTS = 1024 * 1024

logger = logging.getLogger(__name__)


class SpanStates:
    """The partitions without rows of threads and processes that sent lately."""

    def __init__(self, lake: Lake, just_in_time: JustInTime, clock: Clock, lately_s: float) -> None:
        self._lake = lake
        self._just_in_time = just_in_time
        self._clock = clock
        self._lately_ns = int(lately_s * 1e9)

    def advance(self, keep_going: Callable[[], bool]) -> int:
        """Go on from the last partition of each instance that sent lately and has `MIN_OBJECTS` events behind it.

        Returns how many failed; raises `LakeUnavailable` when a store doesn't answer. One that fails is logged and
        tried again by a later call, as long as it sends. Of one that sent while no daemon was there, the first look
        leaves the states.
        """
        failures = 0
        for view_set, instance_id in self._long_instances():
            if not keep_going():
                break
            try:
                if self._behind(view_set, instance_id) >= MIN_OBJECTS:
                    self._just_in_time.advance(view_set, instance_id, keep_going)
            except LakeUnavailable:
                raise
            except QueryError as error:
                # It may not go on, or others keep building: what was done stays.
                logger.debug("%s of %s: %s", view_set.name, instance_id, error)
            except Exception:
                logger.exception("%s of %s were not followed", view_set.name, instance_id)
                failures += 1
        return failures

    def _long_instances(self) -> Iterator[tuple[ViewSet, str]]:
        threads = self._long_streams(THREAD_SPANS)
        yield from ((THREAD_SPANS, stream_id) for stream_id in threads)
        yield from ((NET_SPANS, process_id) for process_id in self._processes_of(self._long_streams(NET_SPANS)))
        # Only blocks tell which threads have asynchronous spans, so a process is followed once somebody asked for them.
        for process_id in self._processes_of(threads):
            if self._lake.metadata.partitions(ASYNC_SPANS.name, process_id):
                yield ASYNC_SPANS, process_id

    def _long_streams(self, view_set: ViewSet) -> list[str]:
        since = self._clock() - self._lately_ns
        return self._lake.metadata.long_streams(decoded_from(view_set).stream_tag, since, MIN_OBJECTS)

    def _processes_of(self, stream_ids: list[str]) -> list[str]:
        streams = self._lake.metadata.streams(stream_ids)
        return sorted({stream.process_id for stream in streams.values()})

    def _behind(self, view_set: ViewSet, instance_id: str) -> int:
        """How many events came since the last partition."""
        partitions = self._lake.metadata.partitions(view_set.name, instance_id)
        covered = max((each.end_insert_time for each in partitions), default=0)
        return self._lake.metadata.count_events(**blocks_of(view_set, instance_id) | {"insert_begin": covered})
