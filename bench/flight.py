"""How fast answers leave over Flight SQL, beside pyarrow.flight's own server, fed by the same asynchronous stream.

    python bench/flight.py [--megabytes 512] [--queries 300]

Both servers run in a process of their own, one after the other, over the same batches in memory: 32 768 rows, wide
(60 columns) and narrow (2 columns). The reader is pyarrow's client in this process. Small queries are one row each, one
after the other. Only ratios of one run mean something: the reader takes as much of the machine as the servers.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

from micromegas.config import FlightSettings
from micromegas.query import QueryRequest, StatementDescription, TableDescription
from micromegas.serve.edge_types import EdgeConverter
from micromegas.serve.flight import messages
from micromegas.serve.flight.server import FlightServer

ROWS = 32_768
MIB = 1024 * 1024


def batch_of(kind: str) -> pa.RecordBatch:
    """`wide`: 60 columns of int64; `narrow`: 2; `small`: one row."""
    rows, columns = {"wide": (ROWS, 60), "narrow": (ROWS, 2), "small": (1, 2)}[kind]
    return pa.record_batch({f"c{number}": pa.array(range(rows), pa.int64()) for number in range(columns)})


class Batches:
    """Statements are `<kind> <count>`: the same batch so many times, as an asynchronous stream."""

    def __init__(self, sql: str) -> None:
        kind, count = sql.split()
        self._batch, self._left = batch_of(kind), int(count)
        self.schema = self._batch.schema

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        await asyncio.sleep(0)
        return self._batch

    async def aclose(self) -> None:
        self._left = 0


class Engine:
    """What our server asks."""

    def describe(
        self, sql: str, parameters: Mapping[str, pa.Scalar] | None = None, *, administers: bool = False
    ) -> StatementDescription:
        return StatementDescription(Batches(sql).schema, pa.schema([]))

    async def execute(self, request: QueryRequest) -> Batches:
        return Batches(request.sql)

    def tables(self) -> list[TableDescription]:
        return []


async def serve_ours() -> None:
    server = FlightServer(Engine(), FlightSettings(port=0), "bench", time.monotonic)  # type: ignore[arg-type]
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


class Peer(flight.FlightServerBase):
    """pyarrow's server: its threads wait for the event loop, batch by batch, and cut them as ours does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._loop = loop

    def do_get(self, _context: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        wrapper = messages.parse("Any", ticket.ticket)
        sql = messages.parse("TicketStatementQuery", wrapper.value).statement_handle.decode()
        stream = Batches(sql)
        converter = EdgeConverter(stream.schema, preserve_dictionary=False)

        def pump() -> Iterator[pa.RecordBatch]:
            while True:
                try:
                    batch = asyncio.run_coroutine_threadsafe(stream.__anext__(), self._loop).result()
                except StopAsyncIteration:
                    return
                yield from converter.convert(batch)

        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(converter.schema, pump()))


async def serve_peer() -> None:
    server = Peer(asyncio.get_running_loop())
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.to_thread(server.shutdown)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one server: GB/s and CPU seconds per GB of wide and narrow rows; small queries per second, CPU ms of one."""

    wide: tuple[float, float]
    narrow: tuple[float, float]
    small: tuple[float, float]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


def measure(role: str, megabytes: int, queries: int) -> Measured:
    command = [sys.executable, __file__, "--serve", role]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with flight.connect(f"grpc://127.0.0.1:{port}") as client:
            rates = {kind: rate_of(client, process.pid, kind, megabytes) for kind in ("wide", "narrow")}
            began, cpu = time.perf_counter(), cpu_seconds(process.pid)
            for _ in range(queries):
                client.do_get(ticket("small 1")).read_all()
            seconds = time.perf_counter() - began
            small = queries / seconds, (cpu_seconds(process.pid) - cpu) / queries * 1000
        process.communicate()
    return Measured(rates["wide"], rates["narrow"], small)


def rate_of(client: flight.FlightClient, pid: int, kind: str, megabytes: int) -> tuple[float, float]:
    batch = batch_of(kind)
    count = max(1, megabytes * MIB // batch.nbytes)
    client.do_get(ticket(f"{kind} 2")).read_all()
    began, cpu = time.perf_counter(), cpu_seconds(pid)
    rows = sum(chunk.data.num_rows for chunk in client.do_get(ticket(f"{kind} {count}")))
    seconds = time.perf_counter() - began
    assert rows == count * batch.num_rows
    gigabytes = count * batch.nbytes / 1e9
    return gigabytes / seconds, (cpu_seconds(pid) - cpu) / gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--serve", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve_ours() if arguments.serve == "ours" else serve_peer())
        return
    rounds = [
        {role: measure(role, arguments.megabytes, arguments.queries) for role in ("ours", "peer")} for _ in range(3)
    ]
    ours, peer = (
        Measured(
            max(each[role].wide for each in rounds),
            max(each[role].narrow for each in rounds),
            max(each[role].small for each in rounds),
        )
        for role in ("ours", "peer")
    )
    print(f"{'best of 3':<28}{'ours':>10}{'pyarrow':>10}{'ratio':>8}  limit")
    for name, a, b, limit in (
        ("wide rows, GB/s", ours.wide[0], peer.wide[0], ">= 0.8"),
        ("narrow rows, GB/s", ours.narrow[0], peer.narrow[0], ">= 0.8"),
        ("wide, CPU s per GB", ours.wide[1], peer.wide[1], ""),
        ("narrow, CPU s per GB", ours.narrow[1], peer.narrow[1], ""),
        ("small queries per second", ours.small[0], peer.small[0], ">= 1.2"),
        ("small, CPU ms per query", ours.small[1], peer.small[1], ""),
    ):
        print(f"{name:<28}{a:>10.3f}{b:>10.3f}{a / b:>8.2f}  {limit}")


if __name__ == "__main__":
    main()
