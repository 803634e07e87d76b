"""All view sets by name."""

from __future__ import annotations

from micromegas.views.async_events import ASYNC_EVENTS
from micromegas.views.async_spans import ASYNC_SPANS
from micromegas.views.blocks import BLOCKS
from micromegas.views.images import IMAGES
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.log_stats import LOG_STATS
from micromegas.views.measures import MEASURES
from micromegas.views.net_spans import NET_SPANS
from micromegas.views.otel_spans import OTEL_SPANS
from micromegas.views.processes import PROCESSES
from micromegas.views.streams import STREAMS
from micromegas.views.thread_spans import THREAD_SPANS
from micromegas.views.view_set import ViewSet

VIEW_SETS: dict[str, ViewSet] = {
    view_set.name: view_set
    for view_set in (
        ASYNC_EVENTS,
        ASYNC_SPANS,
        BLOCKS,
        IMAGES,
        LOG_ENTRIES,
        LOG_STATS,
        MEASURES,
        NET_SPANS,
        OTEL_SPANS,
        PROCESSES,
        STREAMS,
        THREAD_SPANS,
    )
}

GLOBAL_VIEW_SETS: tuple[ViewSet, ...] = tuple(view_set for view_set in VIEW_SETS.values() if view_set.has_global)
CARRYING_VIEW_SETS: tuple[ViewSet, ...] = tuple(
    view_set for view_set in VIEW_SETS.values() if view_set.decoded is not None and view_set.decoded.carries
)
"""Those whose rows reach over partitions, each of which goes on from the one before."""
