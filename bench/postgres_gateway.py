"""Rows that the PostgreSQL gateway serves, beside PostgreSQL itself serving the same table.

`python bench/postgres_gateway.py` makes a lake of log entries (`--rows`), copies four columns of them into a PostgreSQL
through the gateway, and reads the table from both with a client that only takes the bytes, in text and in binary form.
Prints rows per second (limit: 300 000) and per CPU second of the server, and the ratio to PostgreSQL. Ends with 1 when
the gateway is below the limit.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# In place of this folder, whose `query` would hide that of the tests.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psycopg
from postgres_gateway.raw import message, startup, text
from query.traffic import MadeTraffic, materialize
from servers.postgres import OWNER, running_postgres

from micromegas.config import LakeSettings
from micromegas.lake import Lake
from micromegas.views.catalogue import VIEW_SETS

LIMIT = 300_000
QUESTION = "SELECT time, level, target, msg FROM log_entries"
MESSAGES = 10_000
RUNS = 5
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Reading:
    rows: int
    seconds: float
    cpu: float


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=500_000)
    rows = arguments.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="micromegas-bench-") as folder, running_postgres() as postgres:
        fill(Path(folder), rows)
        command = [sys.executable, "-m", "micromegas", "pg-gateway", "--lake", folder, "--pg-port", "0"]
        gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = port_of(gateway)
            database = postgres.create_database()
            copy(port, postgres.url(database))
            failed = False
            for form, code in (("text", 0), ("binary", 1)):
                ours = best(lambda code=code: read(port, "micromegas", code, lambda: cpu_of(gateway.pid)))
                peer = best(lambda code=code: read(postgres.port, database, code, None))
                if ours.rows != peer.rows:
                    raise SystemExit(f"the gateway gave {ours.rows} rows, postgresql {peer.rows}")
                rate = ours.rows / ours.seconds
                failed |= rate < LIMIT
                per_cpu = ours.rows / max(ours.cpu, 1e-9)
                peer_rate = peer.rows / peer.seconds
                print(
                    f"{form:<7} gateway {rate:>10,.0f} rows/s {per_cpu:>10,.0f} rows per CPU s   "
                    f"postgresql {peer_rate:>10,.0f} rows/s   ratio {rate / peer_rate:.2f}   "
                    f"limit {LIMIT:,} {'MISSED' if rate < LIMIT else 'held'}"
                )
        finally:
            gateway.terminate()
            gateway.wait()
    return int(failed)


def fill(folder: Path, rows: int) -> None:
    with Lake.open(LakeSettings(lake_dir=folder)) as lake:
        traffic = MadeTraffic(lake)
        for block in range(0, rows, MESSAGES):
            traffic.logs(*(f"request {n} was answered after a while, as usual" for n in range(block, block + MESSAGES)))
        materialize(lake, VIEW_SETS["log_entries"])


def port_of(gateway: subprocess.Popen[str]) -> int:
    port = 0
    for line in gateway.stdout or ():
        if line.startswith("postgresql"):
            port = int(line.rsplit(":", 1)[1])
        if line.startswith("ready"):
            return port
    raise SystemExit("the gateway did not start")


def copy(port: int, url: str) -> None:
    ours = psycopg.connect(f"host=127.0.0.1 port={port} user={OWNER} dbname=micromegas", autocommit=True)
    with ours, psycopg.connect(url, autocommit=True) as theirs:
        theirs.execute("CREATE TABLE log_entries (time timestamptz, level int, target text, msg text)")
        with (
            ours.cursor().copy(f"COPY ({QUESTION}) TO STDOUT") as source,
            theirs.cursor().copy("COPY log_entries FROM STDIN") as target,
        ):
            for part in source:
                target.write(part)
        theirs.execute("VACUUM ANALYZE log_entries")


def best(run: Callable[[], Reading]) -> Reading:
    return min((run() for _ in range(RUNS)), key=lambda reading: reading.seconds)


def read(port: int, database: str, form: int, cpu: Callable[[], float] | None) -> Reading:
    """Asks by the extended protocol and takes bytes until the answer ends."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(startup({"user": OWNER, "database": database}))
        until_ready(connection)
        before, begin = (cpu() if cpu else 0.0), time.perf_counter()
        connection.sendall(
            message(b"P", text(""), text(QUESTION), b"\0\0")
            + message(b"B", text(""), text(""), b"\0\0\0\0\0\x01", form.to_bytes(2, "big"))
            + message(b"E", text(""), b"\0\0\0\0")
            + message(b"S")
        )
        tail = until_ready(connection)
        seconds = time.perf_counter() - begin
        rows = int(tail[tail.rindex(b"SELECT ") + 7 : tail.rindex(b"\0Z")])
        return Reading(rows, seconds, (cpu() if cpu else 0.0) - before)


def until_ready(connection: socket.socket) -> bytes:
    """The last bytes of an answer, which end with ReadyForQuery."""
    tail = b""
    while tail[-6:-1] != b"Z\0\0\0\x05":
        part = connection.recv(1 << 20)
        if not part:
            raise SystemExit(f"the server closed: {tail!r}")
        tail = (tail + part)[-200:] if len(part) < 200 else part[-200:]
    return tail


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    sys.exit(main())
