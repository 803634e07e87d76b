"""A server process that takes whatever recorders send, answers 200 and counts: requests, bytes, events of blocks.

While it runs, recorders have their spool in a folder that goes with it, not in that of the user.

With the events counted on the other side, "without loss" is not the recorder's own word. A process of its own, so that
nothing of it is counted as the program's.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from micromegas import _core

# As our server answers: it reads columns.
_FORMATS = b"micromegas-stream-formats: micromegas-transit, micromegas-columns/1\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\n" + _FORMATS + b"content-length: 0\r\n\r\n"


@dataclass
class Sink:
    url: str
    _pipe: Connection

    def counts(self) -> dict[str, int]:
        """`requests`, `bytes` (of bodies), `blocks`, `events` so far."""
        self._pipe.send("counts")
        return dict(json.loads(self._pipe.recv()))


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MICROMEGAS_SPOOL_DIR"] = f"{folder}/spool"
        try:
            yield Sink(f"http://127.0.0.1:{here.recv()}", here)
        finally:
            del os.environ["MICROMEGAS_SPOOL_DIR"]
            process.terminate()
            process.join()


def _serve(pipe: Connection) -> None:
    counts = {"requests": 0, "bytes": 0, "blocks": 0, "events": 0}
    lock = threading.Lock()
    server = socket.create_server(("127.0.0.1", 0))
    pipe.send(server.getsockname()[1])

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=read, args=(connection,), daemon=True).start()

    def read(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with connection, contextlib.suppress(ConnectionError):
            while request := stream.readline():
                length = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.strip().lower() == b"content-length":
                        length = int(value)
                body = stream.read(length)
                with lock:
                    counts["requests"] += 1
                    counts["bytes"] += length
                    if b"insert_block" in request:
                        counts["blocks"] += 1
                        counts["events"] += _core.parse_block(body)[-1]
                connection.sendall(_ANSWER)

    threading.Thread(target=accept, daemon=True).start()
    while pipe.recv():
        with lock:
            pipe.send(json.dumps(counts))
