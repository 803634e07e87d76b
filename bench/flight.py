"""How fast answers leave over Flight SQL, beside pyarrow.flight's own server, fed by the same asynchronous stream.

    python bench/flight.py [--seconds 1.5] [--rounds 3]

Servers run in processes of their own, over the same batches in memory: 32 768 rows, wide (60 columns) and narrow (2
columns); small queries are one row each. Clients are pyarrow's, in processes of their own, too: one reader, two readers
of what two workers on one port send (one each, as the one takes a connection that has fewer), 16 clients with
small queries (in two processes), the same beside two readers of wide rows, and 64 readers that stop reading. Only
ratios of one run mean something: the readers take as much of the machine as the servers. Memory is what a server has at
its peak beyond what it had before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

from micromegas.config import FlightSettings
from micromegas.query import QueryRequest, StatementDescription, TableDescription
from micromegas.serve.acceptor import Share
from micromegas.serve.edge_types import EdgeConverter
from micromegas.serve.flight import messages
from micromegas.serve.flight.server import FlightServer
from micromegas.serve.workers.shared_port import SharedPort

ROWS = 32_768
KINDS = {"wide": (ROWS, 60), "narrow": (ROWS, 2), "small": (1, 2)}


@lru_cache
def batch_of(kind: str) -> pa.RecordBatch:
    """`wide`: 60 columns of int64; `narrow`: 2; `small`: one row."""
    rows, columns = KINDS[kind]
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


async def serve_ours(share: Share | None) -> None:
    settings = FlightSettings(port=0)
    server = FlightServer(Engine(), settings, "bench", time.monotonic, share=share)  # type: ignore[arg-type]
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


@dataclass(slots=True)
class Servers:
    """One or more processes on one port."""

    processes: list[subprocess.Popen[str]]
    port: int

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.processes)

    def megabytes(self, what: str) -> float:
        """`VmRSS` (now) or `VmHWM` (the most so far) of all processes."""
        lines = [line for each in self.processes for line in Path(f"/proc/{each.pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


def started(name: str, share: Share | None) -> subprocess.Popen[str]:
    inherited = () if share is None else (share.counts, share.slot, *share.listeners)
    command = [sys.executable, __file__, "--serve", name, "--share", *map(str, inherited)]
    descriptors = () if share is None else (share.counts, *share.listeners)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=descriptors)


@contextmanager
def serving(role: str) -> Iterator[Servers]:
    """`ours`, `peer`, or `ours x 2`."""
    shared = SharedPort("127.0.0.1", 0) if role == "ours x 2" else None
    shares = [None] if shared is None else [shared.share(number) for number in range(2)]
    processes = [started(role.removesuffix(" x 2"), share) for share in shares]
    try:
        ports = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
        yield Servers(processes, ports[0])
    finally:
        for process in processes:
            process.communicate()
        if shared is not None:
            shared.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


def client_of(port: int) -> flight.FlightClient:
    # a connection of its own, which either process may take
    return flight.connect(f"grpc://127.0.0.1:{port}", generic_options=[("grpc.use_local_subchannel_pool", 1)])


def read_for(port: int, kind: str, seconds: float, clients: int) -> None:
    """A process of clients; prints how much they got: queries where these are small, else bytes."""

    def read() -> int:
        done = 0
        with client_of(port) as client:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if kind == "small":
                    client.do_get(ticket("small 1")).read_all()
                    done += 1
                    continue
                reader = client.do_get(ticket(f"{kind} 1000000"))
                while time.monotonic() < end:
                    done += reader.read_chunk().data.nbytes
                reader.cancel()
        return done

    with ThreadPoolExecutor(clients) as pool:
        print(sum(pool.map(lambda _: read(), range(clients))), flush=True)


def amounts(port: int, seconds: float, *clients: tuple[str, int]) -> dict[str, float]:
    """What clients got per second, each of the given (kind, number) in a process."""
    started = [
        (
            kind,
            subprocess.Popen(client_command(port, kind, seconds, count), stdout=subprocess.PIPE, text=True, env=CLIENT),
        )
        for kind, count in clients
    ]
    got: dict[str, float] = {}
    for kind, process in started:
        got[kind] = got.get(kind, 0) + int(process.communicate()[0]) / seconds
    return got


CLIENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
"""Clients keep the memory of the messages that they have read. By default the C library gives it back now and then and
has it made anew, a page at a time: by chance up to half of a reader's time, whoever sends."""


def client_command(port: int, kind: str, seconds: float, clients: int) -> list[str]:
    given = ["--port", str(port), "--seconds", str(seconds), "--clients", str(clients)]
    return [sys.executable, __file__, "--read", kind, *given]


def stalled_megabytes(servers: Servers, clients: int) -> float:
    """What a server takes for readers that stop after their first chunk."""
    before = servers.megabytes("VmRSS")
    opened = [client_of(servers.port) for _ in range(clients)]
    readers = [client.do_get(ticket("wide 1000")) for client in opened]
    for reader in readers:
        reader.read_chunk()
    time.sleep(1)
    peak = servers.megabytes("VmHWM")
    for client, reader in zip(opened, readers, strict=True):
        reader.cancel()
        client.close()
    return peak - before


def measure(role: str, seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    with serving(role) as servers:
        for kind in ("wide", "narrow"):
            cpu = servers.cpu_seconds()
            got = amounts(servers.port, seconds, (kind, 1))[kind] / 1e9
            found[f"{kind} rows, one reader, GB/s"] = got
            found[f"{kind}, CPU s per GB"] = (servers.cpu_seconds() - cpu) / (got * seconds)
            two = amounts(servers.port, seconds, (kind, 1), (kind, 1))[kind] / 1e9
            found[f"{kind} rows, two readers, GB/s"] = two
        found["one client, small queries/s"] = amounts(servers.port, seconds, ("small", 1))["small"]
        cpu = servers.cpu_seconds()
        alone = amounts(servers.port, seconds, ("small", 8), ("small", 8))["small"]
        found["16 clients, small queries/s"] = alone
        found["small, CPU ms per query"] = (servers.cpu_seconds() - cpu) / (alone * seconds) * 1000
        beside = amounts(servers.port, seconds, ("small", 8), ("small", 8), ("wide", 1), ("wide", 1))["small"]
        found["beside 2 heavy readers, part of that"] = beside / alone
        found["64 stalled readers, MB"] = stalled_megabytes(servers, 64)
    return found


LIMITS = {
    "wide rows, one reader, GB/s": ">= 0.8",
    "narrow rows, one reader, GB/s": ">= 0.8",
    "wide rows, two readers, GB/s": "x 2: > 1",
    "narrow rows, two readers, GB/s": "x 2: > 1",
    "16 clients, small queries/s": ">= 1.2",
    "beside 2 heavy readers, part of that": "itself >= 0.6",
}
LESS_IS_BETTER = ("CPU", "MB")
ROLES = ("ours", "ours x 2", "peer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--read", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, nargs="*", default=(), help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        # not while somebody measures
        for kind in KINDS:
            batch_of(kind)
        share = None
        if arguments.share:
            counts, slot, *listeners = arguments.share
            share = Share(tuple(listeners), counts, slot)
        asyncio.run(serve_ours(share) if arguments.serve == "ours" else serve_peer())
        return
    if arguments.read is not None:
        read_for(arguments.port, arguments.read, arguments.seconds, arguments.clients)
        return
    rounds = [{role: measure(role, arguments.seconds) for role in ROLES} for _ in range(arguments.rounds)]
    print(f"best of {arguments.rounds:<30}{'ours':>10}{'ratio':>7}{'ours x 2':>10}{'ratio':>7}{'pyarrow':>10}  limit")
    for name in rounds[0]["peer"]:
        best = min if any(word in name for word in LESS_IS_BETTER) else max
        one, two, peer = (best(each[role][name] for each in rounds) for role in ROLES)
        ratios = f"{one:>10.3f}{one / peer:>7.2f}{two:>10.3f}{two / peer:>7.2f}{peer:>10.3f}"
        print(f"{name:<38}{ratios}  {LIMITS.get(name, '')}")


if __name__ == "__main__":
    main()
