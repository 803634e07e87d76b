"""A node with all of its doors (ingestion, Flight SQL, HTTP, PostgreSQL gateway) in an event loop of a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from pyarrow import ArrowException, flight
from servers.ingest import request

from micromegas.config import (
    FlightSettings,
    HttpSettings,
    IngestSettings,
    LakeSettings,
    PostgresSettings,
    QuerySettings,
)
from micromegas.serve.flight import messages
from micromegas.serve.node import Node
from micromegas.serve.node_settings import NodeSettings


class Doors:
    """`refusals(sql)`: what each of those that ask says to a statement, by its name; an empty text where rows came."""

    def __init__(self, node: Node, addresses: dict[str, str], loop: asyncio.AbstractEventLoop) -> None:
        self.node = node
        self._loop = loop
        self.ports = {role: int(address.rpartition(":")[2]) for role, address in addresses.items() if ":" in address}

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def refusals(self, sql: str) -> dict[str, str]:
        ways: dict[str, Callable[[str], str]] = {
            "queries": self._flight,
            "api": self._http,
            "postgresql": self._postgresql,
        }
        return {name: way(sql) for name, way in ways.items()}

    def insert(self, kind: str, body: bytes) -> tuple[int, str]:
        """Status and text of what ingestion answers."""
        status, text, headers = request(self.ports["ingestion"], "POST", f"/ingestion/insert_{kind}", body)
        return status, text.decode() + str(headers)

    def _flight(self, sql: str) -> str:
        ticket = flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))
        with flight.connect(f"grpc://127.0.0.1:{self.ports['queries']}") as client:
            try:
                client.do_get(ticket, flight.FlightCallOptions(timeout=60)).read_all()
            except ArrowException as error:
                return f"{error} {getattr(error, 'extra_info', '')}"
        return ""

    def _http(self, sql: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.ports["api"], timeout=60)) as client:
            client.request("POST", "/api/query", json.dumps({"sql": sql}), {"content-type": "application/json"})
            reply = client.getresponse()
            text = reply.read().decode()
            return "" if reply.status == 200 else f"{text} {reply.getheaders()}"

    def _postgresql(self, sql: str) -> str:
        address = f"host=127.0.0.1 port={self.ports['postgresql']} user=anybody dbname=micromegas"
        try:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(sql.encode()).fetchall()
        except psycopg.Error as error:
            return f"{error} {error.diag.message_detail} {error.diag.message_hint} {error.diag.context}"
        return ""


@contextmanager
def open_doors(lake: Path, query: QuerySettings | None = None, **settings: Any) -> Iterator[Doors]:
    """All on free ports. `settings`: further ones of the node."""
    roles = {
        "ingest": IngestSettings(port=0),
        "flight": FlightSettings(port=0, drain_timeout_s=0.2),
        "http": HttpSettings(port=0, drain_timeout_s=0.2),
        "postgres": PostgresSettings(port=0, drain_timeout_s=0.2),
    }
    node = Node(
        NodeSettings(lake=LakeSettings(lake_dir=lake), query=query or QuerySettings(), **{**roles, **settings}), "test"
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        doors = Doors(node, asyncio.run_coroutine_threadsafe(node.start(), loop).result(120), loop)
        yield doors
        doors.call(node.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
