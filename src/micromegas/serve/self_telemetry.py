"""A server as a recorded program. It must never read the environment beyond what the recorder itself does."""

from __future__ import annotations

from dataclasses import dataclass, field

import micromegas


@dataclass(frozen=True, slots=True)
class SelfTelemetry:
    """Where a server sends what it tells of itself.

    `ingestion`: address of its own, None without: then the recorder's own variables count. `api_key` is for its own,
    where that asks for one.
    """

    ingestion: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def start(self) -> None:
        micromegas.init(
            url=self.ingestion,
            api_key=self.api_key,
            process_name="micromegas",
            level="info",
            capture_logging=True,
            hooks=False,
        )

    def stop(self) -> None:
        """Blocks until the rest is sent, or can't be."""
        micromegas.shutdown()
