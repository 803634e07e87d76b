"""A lease that is held as long as its keeper runs, so that of several daemons one does a piece of work.

It must never be relied on for correctness: a paused holder finds out too late that it lost the lease.
"""

from __future__ import annotations

import logging

from micromegas.daemon.insert_clock import SECOND, Clock
from micromegas.lake import Metadata

logger = logging.getLogger(__name__)


class Lease:
    """One named lease of one owner. `refresh` and `release` block and come from one thread at a time."""

    def __init__(self, metadata: Metadata, name: str, owner: str, ttl_s: float, clock: Clock) -> None:
        self.name = name
        self._metadata = metadata
        self._owner = owner
        self._ttl = int(ttl_s * SECOND)
        self._clock = clock
        self._token: int | None = None
        self._expires = 0

    @property
    def held(self) -> bool:
        """Whether the work may begin or go on."""
        return self._token is not None and self._clock() < self._expires

    def refresh(self) -> None:
        """Renew the lease, or try to get it. Raises `LakeUnavailable`; what was held then runs out by itself."""
        # Counted from before the call: the database must not think of it as free before we do.
        expires = self._clock() + self._ttl
        if self._token is not None and self._metadata.renew_lease(self.name, self._token, self._ttl):
            self._expires = expires
            return
        if self._token is not None:
            logger.warning("lease %s was lost to another daemon", self.name)
        self._token = self._metadata.acquire_lease(self.name, self._owner, self._ttl)
        self._expires = expires

    def release(self) -> None:
        """Let another daemon go on at once."""
        if self._token is not None:
            token, self._token = self._token, None
            self._metadata.release_lease(self.name, token)
