"""`micromegas serve` and the single roles as real processes on free ports, and what tests ask of them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
from e2e.answers import records
from e2e.posting import Sender, wait_until
from servers.ports import free_port

from micromegas.client import Client
from micromegas.config import LakeSettings

PROGRAM = Path(sys.executable).with_name("micromegas")
STOP_TIMEOUT_S = 60.0
FREE_PORTS = ("--http-port", "0", "--flight-port", "0", "--api-port", "0")
ALL_TIME = ("1970-01-02T00:00:00Z", "2200-01-01T00:00:00Z")


def lake_arguments(settings: LakeSettings) -> list[str]:
    """The command line's options for a lake."""
    arguments = [] if settings.lake_dir is None else ["--lake", str(settings.lake_dir)]
    if settings.database_url is not None:
        arguments += ["--database-url", settings.database_url]
    if settings.object_store is not None:
        arguments += ["--object-store", settings.object_store]
    return arguments


class Service:
    """A role of the product as a process. Context manager: ends it in order.

    `environment`: variables that it has beside the inherited ones; `api_key` is presented by `query`,
    which speaks TLS where a `ca_file` vouches for the service.
    """

    def __init__(
        self,
        role: str,
        settings: LakeSettings,
        arguments: tuple[str, ...] = (),
        *,
        environment: Mapping[str, str] | None = None,
        api_key: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.http_port = free_port()
        self.flight_port = free_port()
        self.api_port = free_port()
        self._role = role
        queries = ["--flight-port", str(self.flight_port), "--api-port", str(self.api_port)]
        ports = {
            "serve": ["--http-port", str(self.http_port), *queries],
            "ingest": ["--http-port", str(self.http_port)],
            "query-server": queries,
            "daemon": [],
        }
        self._command = [str(PROGRAM), role, *lake_arguments(settings), *ports[role], *arguments]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MICROMEGAS_", "AWS_"))}
        self._environment = inherited | {key.upper(): value for key, value in settings.object_store_options.items()}
        self._environment |= environment or {}
        self._api_key = api_key
        self._ca_file = ca_file
        self._log = tempfile.NamedTemporaryFile(prefix="micromegas-test-", suffix=".log")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Start the process; unless told otherwise, return when it answers."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT, cwd=tempfile.gettempdir()
        )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        if self._role in ("serve", "ingest"):
            wait_until(self._answers_http, f"{self._role}: ready")
        if self._role in ("serve", "query-server"):
            wait_until(self._answers_flight, f"{self._role}: answering queries")

    def _answers_http(self) -> bool:
        self.assert_running()
        sender = Sender(self.http_port, self._ca_file)
        try:
            return sender.request("GET", "/ready").status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            sender.close()

    def _answers_flight(self) -> bool:
        self.assert_running()
        with contextlib.suppress(Exception):
            return self.query("SELECT 1 AS one").num_rows == 1
        return False

    def assert_running(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, (
            f"{self._role} ended with {self._process.returncode}:\n{self.log()[-5000:]}"
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the process as a power cut would: at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End the process in order; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self._process.returncode

    def log(self) -> str:
        """Everything that the process has printed."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def peak_memory(self) -> int:
        """The most bytes of memory that the process ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def query(self, sql: str, *, ranged: bool = False) -> pa.Table:
        """The answer to a statement, over a connection of its own; `ranged` sends a time range that holds all."""
        # certificates of tests name the name
        place = "grpc://127.0.0.1" if self._ca_file is None else "grpc+tls://localhost"
        address = f"{place}:{self.flight_port}"
        with Client(address, api_key=self._api_key, ca_file=self._ca_file) as client:
            return client.query(sql, *ALL_TIME) if ranged else client.query(sql)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if error is not None:
                sys.stderr.write(f"--- {self._role} log, end:\n{self.log()[-8000:]}\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self._log.close()


@contextlib.contextmanager
def serving(
    settings: LakeSettings,
    role: str = "serve",
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    api_key: str | None = None,
    ca_file: str | None = None,
) -> Iterator[Service]:
    """A started service that is ended at the end."""
    with Service(role, settings, arguments, environment=environment, api_key=api_key, ca_file=ca_file) as service:
        service.start()
        yield service


def uncovered_blocks(service: Service, view_set: str, tag: str) -> list[str]:
    """Ids of the blocks that no partition of the global view holds yet; `AssertionError` if partitions overlap."""
    partitions = records(
        service.query(
            "SELECT begin_insert_time, end_insert_time FROM list_partitions() "
            f"WHERE view_set_name = '{view_set}' AND view_instance_id = 'global' ORDER BY begin_insert_time"
        )
    )
    ranges = [(each["begin_insert_time"], each["end_insert_time"]) for each in partitions]
    for (_, end), (begin, _) in itertools.pairwise(ranges):
        assert end <= begin, f"partitions of {view_set} overlap"
    blocks = records(
        service.query(f"SELECT block_id, insert_time FROM blocks WHERE array_has(\"streams.tags\", '{tag}')")
    )
    return [each["block_id"] for each in blocks if not any(begin <= each["insert_time"] < end for begin, end in ranges)]


def wait_until_materialized(service: Service) -> None:
    """Return once partitions of the global views hold every visible block."""
    for view_set, tag in (("log_entries", "log"), ("measures", "metrics")):
        wait_until(
            lambda view_set=view_set, tag=tag: not uncovered_blocks(service, view_set, tag),  # type: ignore[misc]
            f"{view_set}: every block in a partition",
        )
