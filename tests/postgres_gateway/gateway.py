"""A PostgreSQL gateway in a thread of the test's process, over a lake that holds known telemetry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from micromegas.config import PostgresSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.serve.postgres.server import PostgresServer
from micromegas.serve.query_engine import query_engine

SETTINGS = QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0)


class RunningGateway:
    """A gateway on its own event loop. Context manager."""

    def __init__(self, lake: Lake, **settings: Any) -> None:
        self.engine: QueryEngine = query_engine(lake, SETTINGS)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = PostgresServer(self.engine, PostgresSettings(**{"port": 0, "drain_timeout_s": 0.0, **settings}))
        try:
            self.call(self.server.start())
        except BaseException:
            self._end()
            raise
        self.port = self.server.port

    def __enter__(self) -> RunningGateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self.server.stop())
        self._end()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def dsn(self, **options: str) -> str:
        """How libpq is told to connect."""
        parts = {"host": "127.0.0.1", "port": str(self.port), "user": "anybody", "dbname": "micromegas", **options}
        return " ".join(f"{name}='{value}'" for name, value in parts.items())

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
        self.engine.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """A gateway, with what its lake holds."""

    gateway: RunningGateway
    process_id: str
    thread_id: str
    first_time: int
    """Event time (ns) of the first message of `messages`."""
    messages: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
