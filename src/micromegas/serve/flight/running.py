"""Queries that run now and can be cancelled by the id that their ticket carries. Forgets them as soon as they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakSet

CancelStatus = Literal["cancelled", "unknown", "not yours"]


class RunningQueries:
    """Belongs to one event loop. An owner is the name of a key or a person, None where nobody is asked for it."""

    def __init__(self) -> None:
        self._tasks: defaultdict[str, dict[asyncio.Task[Any], str | None]] = defaultdict(dict)
        # of those that end by themselves before they learn of it, nobody asks
        self._cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()

    @contextmanager
    def entered(self, query_id: str, owner: str | None) -> Iterator[None]:
        """Around the work of the current task for a query; one ticket may be used by several at once."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[query_id][task] = owner
        try:
            yield
        finally:
            del self._tasks[query_id][task]
            if not self._tasks[query_id]:
                del self._tasks[query_id]

    def cancel(self, query_id: str, owner: str | None, *, anyones: bool) -> CancelStatus:
        """Ends the tasks of the query that are the owner's, or `anyones`."""
        if query_id not in self._tasks:
            return "unknown"
        found = [task for task, theirs in self._tasks[query_id].items() if anyones or theirs == owner]
        for task in found:
            if task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()
        return "cancelled" if found else "not yours"

    def was_cancelled(self) -> bool:
        """Whether the current task was ended from here; asked once, when it learns of a cancellation."""
        task = asyncio.current_task()
        assert task is not None
        if task not in self._cancelled:
            return False
        self._cancelled.discard(task)
        task.uncancel()
        return True
