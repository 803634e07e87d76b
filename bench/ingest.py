"""How much CPU the ingestion service needs per block, beside a bare handler of the same HTTP server.

    python bench/ingest.py [--seconds 5] [--connections 64]

Prints, for blocks of 1 KB and 50 KB, requests per CPU-second (user + system) of the server process: a handler that
reads the body and answers 200; the whole service over SQLite and a folder; over PostgreSQL and a folder. Both write
durably; the CPU of the database server is beside it. Ratios are to the bare handler of the same run. It must never
count what the load generator costs: that is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests")]

SIZES = {"1 KB": 1000, "50 KB": 50_000}
WARM_UP_S = 1.0
ID_PLACE = "00000000-0000-4000-8000-000000000000"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Connection(asyncio.Protocol):
    """Sends a request as soon as the last one is answered."""

    def __init__(self, head: bytes, tail: bytes, counts: dict[str, int]) -> None:
        self._head = head
        self._tail = tail
        self._counts = counts
        self._received = b""
        self._transport: Any = None
        self.is_stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        # Good answers have no body: the blank line ends them.
        if self._received.endswith(b"\r\n\r\n"):
            good = self._received.startswith(b"HTTP/1.1 200 ")
            self._counts["good" if good else "bad"] += 1
            self._received = b""
            if not self.is_stopping:
                self._send()

    def _send(self) -> None:
        random = os.urandom(16).hex()
        block_id = f"{random[:8]}-{random[8:12]}-4{random[13:16]}-8{random[17:20]}-{random[20:]}"
        self._transport.write(self._head + block_id.encode() + self._tail)


async def _load(port: int, size: int, connections: int, counts: dict[str, int], orders: Any) -> None:
    from senders import block_body, new_id, process_body, stream_body
    from servers.ingest import post

    process_id, stream_id = new_id(), new_id()
    post(port, "process", process_body(process_id))
    post(port, "stream", stream_body(process_id, stream_id))
    body = block_body(process_id, stream_id, ID_PLACE, size=size)
    await send_until_stopped(
        port, "/ingestion/insert_block", body, headers={}, connections=connections, counts=counts, orders=orders
    )


async def send_until_stopped(
    port: int, path: str, body: bytes, *, headers: dict[str, str], connections: int, counts: dict[str, int], orders: Any
) -> None:
    """Post the body over and over, with an id of its own each time in the place of `ID_PLACE`."""
    head, _, tail = body.partition(ID_PLACE.encode())
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + head
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(head, tail, counts), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    while (order := await loop.run_in_executor(None, orders.recv)) != "stop":
        orders.send(dict(counts) if order == "counts" else None)
    for connection in opened:
        connection.is_stopping = True


def generate_load(port: int, size: int, connections: int, orders: Any) -> None:
    """The load generator's process: sends until told to stop, tells its counts when asked."""
    asyncio.run(_load(port, size, connections, {"good": 0, "bad": 0}, orders))


async def _serve_bare() -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server
    from servers.ports import free_port

    async def answer(scope: Any, exchange: Any) -> None:
        await exchange()
        exchange.response_empty(200, [])

    port = free_port()
    server = Server(answer, port=port, interface=Interfaces.RSGI, websockets=False, backlog=1024, log_enabled=False)
    task = asyncio.get_running_loop().create_task(server.serve())
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    print(port, flush=True)
    await task


@contextmanager
def bare_process() -> Iterator[tuple[int, int]]:
    """The bare handler as a process: pid and port."""
    with subprocess.Popen([sys.executable, __file__, "--serve-bare"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def measure(
    pid: int,
    port: int,
    *,
    size: int,
    seconds: float,
    connections: int,
    database_pid: int | None,
    load: Callable[[int, int, int, Any], None] = generate_load,
) -> tuple[float, float, float]:
    """Requests per CPU-second of the server, requests per second, CPU share of the database per request (ms).

    `load` is the load generator's process: it is given port, size, connections and the pipe of its orders.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    generator = spawn.Process(target=load, args=(port, size, connections, theirs))
    generator.start()

    def database_cpu() -> float:
        return sum(map(cpu_seconds, children_of(database_pid))) if database_pid else 0.0

    def snapshot() -> tuple[dict[str, int], float, float, float]:
        ours.send("counts")
        return ours.recv(), cpu_seconds(pid), database_cpu(), time.monotonic()

    ours.send("wait")
    ours.recv()
    time.sleep(WARM_UP_S)
    counts_before, cpu_before, database_before, begun = snapshot()
    time.sleep(seconds)
    counts, cpu, database, ended = snapshot()
    ours.send("stop")
    generator.join()
    if counts["bad"]:
        raise RuntimeError(f"{counts['bad']} requests were not answered with 200")
    done = counts["good"] - counts_before["good"]
    return done / (cpu - cpu_before), done / (ended - begun), (database - database_before) / done * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve-bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_bare:
        asyncio.run(_serve_bare())
        return

    from servers.ingest import ingest_process
    from servers.postgres import running_postgres

    from micromegas.config import LakeSettings

    print(f"{'block':>6}  {'server':<20} {'req/CPU-s':>10} {'of bare':>8} {'CPU ms':>7} {'req/s':>7}  database CPU ms")
    with running_postgres(durable=True) as postgres:
        for label, size in SIZES.items():
            bare_rate = 0.0
            for name in ("bare handler", "sqlite + folder", "postgresql + folder"):
                with tempfile.TemporaryDirectory(prefix="mm-bench-") as folder:
                    uses_postgres = name.startswith("postgresql")
                    url = postgres.url(postgres.create_database()) if uses_postgres else None
                    settings = LakeSettings(lake_dir=Path(folder), database_url=url)
                    server: Any = bare_process() if name == "bare handler" else ingest_process(settings)
                    with server as (process, port):
                        pid = process if isinstance(process, int) else process.pid
                        rate, per_second, database = measure(
                            pid,
                            port,
                            size=size,
                            seconds=arguments.seconds,
                            connections=arguments.connections,
                            database_pid=postgres.pid if uses_postgres else None,
                        )
                bare_rate = bare_rate or rate
                print(
                    f"{label:>6}  {name:<20} {rate:>10,.0f} {rate / bare_rate:>8.1%} {1000 / rate:>7.3f} "
                    f"{per_second:>7,.0f}  {f'{database:.3f}' if uses_postgres else ''}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
