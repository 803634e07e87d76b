"""What one server process is to be: a lake, and the settings of each role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from micromegas.config import (
    DaemonSettings,
    FlightSettings,
    HttpSettings,
    IngestSettings,
    LakeSettings,
    PostgresSettings,
    QuerySettings,
)

FLIGHT, HTTP, POSTGRES = "flight sql", "http", "postgresql gateway"
"""Names of the roles that workers can play."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The lake, and the settings of each role that this process plays (None: it does not).

    * `workers`: so many processes of their own answer queries by Flight SQL and HTTP, on one port each, and one more
      is the PostgreSQL gateway. 0: all is done in this process.
    * `self_telemetry`: each of these processes records itself.
    """

    lake: LakeSettings
    query: QuerySettings = field(default_factory=QuerySettings)
    ingest: IngestSettings | None = None
    flight: FlightSettings | None = None
    http: HttpSettings | None = None
    postgres: PostgresSettings | None = None
    daemon: DaemonSettings | None = None
    workers: int = 0
    self_telemetry: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"{self.workers} workers: there can't be fewer than none")

    def parted(self) -> tuple[NodeSettings, Sequence[NodeSettings]]:
        """What stays in this process, and what each of the others does. They part the memory of queries."""
        if self.workers == 0:
            return self, ()
        here = replace(self, flight=None, http=None, postgres=None, workers=0)
        answering = replace(self, ingest=None, daemon=None, postgres=None, workers=0)
        others = [answering] * self.workers if (self.flight, self.http) != (None, None) else []
        if self.postgres is not None:
            others.append(replace(answering, flight=None, http=None, postgres=self.postgres))
        query = self.query.parted(len(others) + (self.daemon is not None))
        return replace(here, query=query), [replace(each, query=query) for each in others]
