"""`micromegas logs --follow`: what arrives is told once, in either form, until somebody ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadlines import killed_after, started
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import PROGRAM, Service, serving

from micromegas.config import LakeSettings

SQL = "SELECT msg FROM log_entries ORDER BY time"
DEADLINE_S = 120.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(LakeSettings(lake_dir=tmp_path / "lake")) as running:
        yield running


@contextlib.contextmanager
def following(service: Service, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    address = f"grpc://127.0.0.1:{service.flight_port}"
    command = [str(PROGRAM), "logs", "--follow", "--begin", "2001-01-01", "--interval", "0.1", "--server", address]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": inherited}
    with started([*command, *arguments], **options) as process, killed_after(process, DEADLINE_S):
        yield process


def post(service: Service, scenario: str) -> None:
    requests = recording(scenario).requests
    assert_all_accepted(requests, post_all(service.http_port, requests))


def test_what_was_there_and_what_arrives_is_told_once(service: Service) -> None:
    post(service, "tiny")
    before = service.query(SQL).num_rows
    with following(service, "--json", "--last", "1000000") as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(before)]
        post(service, "py_encoder")
        every = service.query(SQL)["msg"].to_pylist()
        assert len(every) > before > 0
        told += [json.loads(process.stdout.readline()) for _ in range(len(every) - before)]
        assert sorted(row["msg"] for row in told) == sorted(every)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        assert (rest, errors, process.returncode) == ("", "", 130)


def test_a_server_that_comes_back_is_followed_on(service: Service) -> None:
    with following(service, "--level", "trace") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        post(service, "tiny")
        first = process.stdout.readline()
        assert first.startswith("20")
        service.stop()
        assert "trying again" in process.stderr.readline()
        service.start()
        post(service, "py_encoder")
        (process_id,) = recording("py_encoder").processes
        while f"[{process_id[:8]}]" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
