"""The leases under which this server builds partitions, so that of several servers one decodes the blocks.

A build must never commit on the strength of what is remembered here: the metadata checks its claim in the commit.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid

from micromegas.lake import Lake, LakeError, LeaseClaim

PREFIX = "build/"
TTL_S = 15.0
# Of builders that died; nobody asked for the same partition since, or the lease would have been taken over.
_FORGET_AFTER_NS = 3600 * 1_000_000_000

logger = logging.getLogger(__name__)


class BuildLeases:
    """Takes leases and keeps them alive, in a thread that lives as long as there are some. Thread-safe."""

    def __init__(self, lake: Lake, ttl_s: float) -> None:
        self._metadata = lake.metadata
        self._clock = lake.clock
        self._ttl_s = ttl_s
        self._server = f"{socket.gethostname()}/{os.getpid()}"
        self._held: set[LeaseClaim] = set()
        self._changed = threading.Condition()
        self._keeper: threading.Thread | None = None
        self._forgot_at = 0

    def take(self, name: str) -> LeaseClaim | None:
        """The lease of this name (after `PREFIX`); None when another build holds it. Raises `LakeUnavailable`."""
        # A builder of its own each time: two builds of one server must not share a lease either.
        owner = f"{self._server}/{uuid.uuid4()}"
        token = self._metadata.acquire_lease(PREFIX + name, owner, int(self._ttl_s * 1e9))
        if token is None:
            return None
        claim = LeaseClaim(PREFIX + name, token)
        with self._changed:
            self._held.add(claim)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="build-leases", daemon=True)
                self._keeper.start()
        return claim

    def is_taken(self, name: str) -> bool:
        """Whether a build holds the lease now, here or elsewhere. Raises `LakeUnavailable`."""
        return self._metadata.lease_is_held(PREFIX + name)

    def give_back(self, claim: LeaseClaim, *, used_up: bool) -> None:
        """The build is over. Unless its commit used the lease up, it is free for others at once."""
        with self._changed:
            self._held.discard(claim)
            self._changed.notify()
        if not used_up:
            try:
                self._metadata.drop_lease(claim)
            except LakeError as error:
                logger.warning("lease %s is left to run out: %s", claim.name, error)

    def _keep(self) -> None:
        self._forget_old()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._held, self._ttl_s / 3)
                if not self._held:
                    self._keeper = None
                    return
                held = list(self._held)
            for claim in held:
                try:
                    self._metadata.renew_lease(claim.name, claim.token, int(self._ttl_s * 1e9))
                except LakeError as error:
                    logger.warning("lease %s was not renewed: %s", claim.name, error)

    def _forget_old(self) -> None:
        now = self._clock()
        if now - self._forgot_at < _FORGET_AFTER_NS:
            return
        self._forgot_at = now
        try:
            self._metadata.forget_leases(PREFIX, now - _FORGET_AFTER_NS)
        except LakeError as error:
            logger.warning("old leases of builds are kept: %s", error)
