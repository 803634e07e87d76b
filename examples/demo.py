"""`make demo`: starts a server on the folder `demo-lake` (or the one given), runs an instrumented program, asks three
questions in SQL, and stops.

Takes the usual ports if they are free, others if not. Ends by itself; exit code 0 means that every step worked.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micromegas.cli.formats import writer_for
from micromegas.client import Client

HERE = Path(__file__).resolve().parent
MICROMEGAS = Path(sys.executable).with_name("micromegas")
HTTP_PORT, FLIGHT_PORT = 9000, 50051

NEWEST_PROCESS = "SELECT process_id FROM processes ORDER BY start_time DESC LIMIT 1"
BUSIEST_THREAD = """
    SELECT stream_id
    FROM blocks
    WHERE array_has("streams.tags", 'cpu')
        AND process_id IN (SELECT process_id FROM processes ORDER BY start_time DESC LIMIT 1)
    GROUP BY stream_id
    ORDER BY sum(nb_objects) DESC
    LIMIT 1
"""


def main(lake: Path) -> None:
    say(f"starting the all-in-one server on {lake}")
    with serving(lake) as addresses:
        for role, address in addresses.items():
            print(f"  {role:<10} {address}")
        begin = time.time_ns()
        say("running examples/demo_program.py, which logs, measures, and traces on several threads")
        environment = os.environ | {"MICROMEGAS_TELEMETRY_URL": addresses["ingestion"]}
        subprocess.run([sys.executable, str(HERE / "demo_program.py")], env=environment, check=True)
        with Client(addresses["queries"]) as client:
            ask_three_questions(client, begin, time.time_ns())
    say("the server has stopped; what it took is kept. To look around:")
    print(f"  .venv/bin/micromegas serve --lake {lake}")
    print('  .venv/bin/micromegas query "SELECT time, level, msg FROM log_entries ORDER BY time" --begin 1h')
    print(f"  or any Flight SQL client, at grpc://localhost:{FLIGHT_PORT}")


def ask_three_questions(client: Client, begin: int, end: int) -> None:
    """Prints each statement of `three_questions.sql` with its answer; `begin` and `end` in ns are the time of the
    program's run."""
    process_id = the_only_id(client, NEWEST_PROCESS, begin, end)
    stream_id = the_only_id(client, BUSIEST_THREAD, begin, end)
    for question in (HERE / "three_questions.sql").read_text(encoding="utf-8").split("\n\n-- ")[1:]:
        title, statement = question.split("\n", 1)
        say(title)
        # the arguments of view_instance are part of the text: no parameter can stand there
        statement = statement.replace("{process_id}", process_id).replace("{stream_id}", stream_id)
        show(client, statement, begin, end)


def the_only_id(client: Client, statement: str, begin: int, end: int) -> str:
    (found,) = client.query(statement, begin, end).column(0).to_pylist()
    return str(uuid.UUID(found))


def show(client: Client, statement: str, begin: int, end: int) -> None:
    sys.stdout.flush()
    with client.stream(statement, begin, end) as result:
        writer = writer_for("table", sys.stdout.buffer, result.schema)
        for batch in result:
            writer.write(batch)
        writer.close()
    sys.stdout.buffer.flush()


@contextmanager
def serving(lake: Path) -> Iterator[dict[str, str]]:
    """Runs `micromegas serve`; yields its addresses by role once it is ready, and stops it in order."""
    ports = [
        "--http-port",
        str(free_or_any(HTTP_PORT)),
        "--flight-port",
        str(free_or_any(FLIGHT_PORT)),
        "--api-port",
        "0",
    ]
    command = [str(MICROMEGAS), "serve", "--lake", str(lake), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            addresses = {}
            for line in server.stdout or ():
                if line == "ready\n":
                    break
                role, address = line.split()
                addresses[role] = address
            else:
                sys.exit("the server ended before it was ready")
            yield addresses
        finally:
            server.send_signal(signal.SIGTERM)
    if server.returncode != 0:
        sys.exit(f"the server ended with {server.returncode}")


def free_or_any(port: int) -> int:
    """`port` if nobody listens there, else 0 (any free one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return port


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-lake"))
