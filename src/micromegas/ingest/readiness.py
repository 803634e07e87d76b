"""Whether the stores behind the service answer. It must never pile up checks on a store that hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

logger = logging.getLogger(__name__)


class Readiness:
    """Runs a blocking check with a time limit; a good answer is kept for a while, a bad one is not."""

    def __init__(self, check: Callable[[], None], timeout_s: float, cache_s: float) -> None:
        self._check = check
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ingest-ready")
        self._running: asyncio.Future[None] | None = None
        self._good_until = float("-inf")

    async def is_ready(self) -> bool:
        """True when the check returned within the limit, or did so a moment ago."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._good_until:
            return True
        if self._running is None or self._running.done():
            self._running = loop.run_in_executor(self._thread, self._check)
        try:
            # Shielded: askers share one check, and one that gives up must not end it for the others.
            await asyncio.wait_for(asyncio.shield(self._running), self._timeout_s)
        except TimeoutError:
            logger.warning("not ready: no answer within %g s", self._timeout_s)
            return False
        except Exception as error:
            logger.warning("not ready: %s", error)
            return False
        self._good_until = loop.time() + self._cache_s
        return True

    def close(self) -> None:
        """Start no further checks; one that hangs is left behind."""
        self._thread.shutdown(wait=False, cancel_futures=True)
