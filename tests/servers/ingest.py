"""The ingestion service for tests: in a thread of this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from micromegas.config import IngestSettings, LakeSettings
from micromegas.ingest import IngestServer
from micromegas.lake import Lake
from micromegas.serve.sign_in import TokenAdmission
from micromegas.serve.tls import Certificate
from micromegas.wire import BatchSink


class RunningIngest:
    """An `IngestServer` in an event loop of its own."""

    def __init__(self, sink: BatchSink, settings: IngestSettings, readiness: Callable[[], None]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        tokens = None if settings.oidc is None else TokenAdmission(settings.oidc).admits
        self._server = IngestServer(sink, settings, readiness, Certificate.of(settings), tokens)
        try:
            self._run(self._server.start())
        except BaseException:
            self._end()
            raise
        self.port = self._server.port

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._run(self._server.stop())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def running_ingest(
    sink: BatchSink, settings: IngestSettings | None = None, readiness: Callable[[], None] = lambda: None
) -> Iterator[RunningIngest]:
    """Serve a sink on a free port for the block."""
    server = RunningIngest(sink, settings or IngestSettings(port=0), readiness)
    try:
        yield server
    finally:
        server.stop()


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """One request on a connection of its own: status, body, headers (lower-case names)."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}


def post(port: int, kind: str, body: bytes, **headers: str) -> int:
    """Send to a native endpoint; the status."""
    return request(port, "POST", f"/ingestion/insert_{kind}", body, headers)[0]


@contextmanager
def ingest_process(settings: LakeSettings, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service over a lake as a process of its own: the process and its port. Killed at the end if it still runs."""
    described = asdict(settings)
    described["lake_dir"] = None if settings.lake_dir is None else str(settings.lake_dir)
    process = subprocess.Popen(
        [sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(described))
        process.stdin.close()
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _serve_until_terminated(settings: LakeSettings, port: int) -> None:
    import signal

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with Lake.open(settings) as lake:
        server = IngestServer(lake, IngestSettings(port=port), lake.check)
        await server.start()
        print(server.port, flush=True)
        await ended.wait()
        await server.stop()


if __name__ == "__main__":
    described = json.load(sys.stdin)
    described["lake_dir"] = None if described["lake_dir"] is None else Path(described["lake_dir"])
    asyncio.run(_serve_until_terminated(LakeSettings(**described), int(sys.argv[1])))
