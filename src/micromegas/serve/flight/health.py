"""Health checks: `grpc.health.v1` and any path that ends in `/health`. Answered before sign-in; never touches the
lake."""

from __future__ import annotations

import asyncio

HEALTH_SERVICE = "/grpc.health.v1.Health/"
SERVING = b"\x08\x01"
NOT_SERVING = b"\x08\x02"
"""HealthCheckResponse with its one field, `status`."""


class Health:
    """Whether this server takes new queries: until `stopping` is set."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()

    def answer(self) -> bytes:
        return NOT_SERVING if self.stopping.is_set() else SERVING


def is_health_path(path: str) -> bool:
    return path.endswith("/health")
