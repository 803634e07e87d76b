"""Budgets of the query engine. It must never hold a default that lets one query take the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """What a query may use.

    * `memory_bytes`: what operators of all queries take; beyond, they spill to `spill_dir` (None: a private temporary
      folder of the process), at most `spill_bytes`.
    * `query_memory_bytes`: what those of one query take at most (None: half of it all). The memory and the room to
      spill are parted into as many shares as there are of these; each query gets its place in the one with the fewest.
    * `tail_bytes`: rows decoded on demand for what no partition covers yet, per query; beyond, the query fails and
      says what to do, and is never cut.
    * `hot_bytes`: such rows kept in memory for the queries that follow, over all queries; 0 keeps none.
    * `views_file`: the site's own views, as `docs/views.md` tells to write them; the same for all servers of a lake.
    * `max_result_rows`: an answer longer than this is an error; None = unlimited.
    """

    memory_bytes: int = 1024 * MIB
    query_memory_bytes: int | None = None
    spill_dir: Path | None = None
    spill_bytes: int = 20 * 1024 * MIB
    tail_bytes: int = 512 * MIB
    hot_bytes: int = 128 * MIB
    max_result_rows: int | None = None
    statement_timeout_s: float = 300.0
    target_partitions: int | None = None
    views_file: Path | None = None

    @property
    def share_bytes(self) -> int:
        """Memory of one query."""
        half = max(1, self.memory_bytes // 2)
        return half if self.query_memory_bytes is None else min(self.query_memory_bytes, self.memory_bytes)

    def parted(self, processes: int) -> QuerySettings:
        """What each of so many processes may use for all of them to keep within these."""
        return replace(
            self,
            memory_bytes=max(1, self.memory_bytes // processes),
            spill_bytes=max(1, self.spill_bytes // processes),
            hot_bytes=self.hot_bytes // processes,
        )

    def __post_init__(self) -> None:
        if (
            min(self.memory_bytes, self.spill_bytes, self.tail_bytes) < 1
            or (self.query_memory_bytes is not None and self.query_memory_bytes < 1)
            or self.hot_bytes < 0
            or self.statement_timeout_s <= 0
        ):
            raise ValueError("query budgets must be positive")
        if self.max_result_rows is not None and self.max_result_rows < 0:
            raise ValueError("the limit of result rows must not be negative")
