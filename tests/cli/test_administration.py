"""keys, replicate and doctor, over two servers: one on a folder that anybody may use, and one on PostgreSQL and S3 that
wants keys of a file."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import stat
import struct
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cli.calling import call
from cli.test_commands import assert_one_line_error, run
from deadlines import started
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import PROGRAM, Service, serving
from pyarrow import flight
from servers.lakes import remote_lake
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from micromegas.cli.connection import connected
from micromegas.cli.errors import CliError
from micromegas.cli.options import Connection
from micromegas.cli.service_options import LakeFlags, ServiceFlags
from micromegas.cli.settings import node_settings
from micromegas.config import LakeSettings

COUNTS = "SELECT count(*) AS n, count(DISTINCT process_id) AS processes, sum(payload_size) AS bytes FROM blocks"
LOGS = "SELECT process_id, block_id, level, target, msg FROM log_entries ORDER BY block_id, msg, target"
(PROCESS,) = recording("py_encoder").processes
# This one announces the frequency of its counter; of others each lake measures it.
TIMES = f"SELECT block_id, time FROM log_entries WHERE process_id = '{PROCESS}' ORDER BY block_id, time"


class Authorization(flight.ServerMiddleware):
    """What a call brought to sign in with."""

    def __init__(self, value: str | None) -> None:
        self.value = value


class AuthorizationFactory(flight.ServerMiddlewareFactory):
    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> Authorization:
        return Authorization(*headers.get("authorization", [None]))


class KeyOfCaller(flight.FlightServerBase):
    """Answers any question with the key that came with it, and demands none."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"authorization": AuthorizationFactory()})

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        key = pa.array([context.get_middleware("authorization").value], pa.string())
        return flight.RecordBatchStream(pa.table({"key": key}))


def address(service: Service) -> str:
    return f"grpc://127.0.0.1:{service.flight_port}"


def done(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    finished = call(*arguments, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("open") / "lake")) as service:
        for scenario in ("tiny", "py_encoder"):
            requests = recording(scenario).requests
            assert_all_accepted(requests, post_all(service.http_port, requests))
        yield service


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(keys_file: Path) -> str:
    return done("keys", "add", "ops", "--file", str(keys_file)).stdout.decode().strip()


@pytest.fixture(scope="module")
def keyed_server(postgres_server: PostgresServer, s3_server: S3Server, keys_file: Path, key: str) -> Iterator[Service]:
    environment = {"MICROMEGAS_API_KEYS_FILE": str(keys_file), "MICROMEGAS_ADMINS": '["ops"]'}
    with (
        remote_lake(postgres_server, s3_server) as settings,
        serving(settings, environment=environment, api_key=key) as service,
    ):
        yield service


def test_keys_are_made_listed_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    at = ("--file", str(file))
    made = json.loads(done("keys", "add", "ann", *at, "--json").stdout)
    assert made["name"] == "ann"
    assert json.loads(file.read_text()) == [made]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(made["key"]) >= 40
    assert_one_line_error(call("keys", "add", "ann", *at), "ann is there already")
    other = done("keys", "add", "bob", MICROMEGAS_API_KEYS_FILE=str(file)).stdout.decode().strip()
    assert other != made["key"]
    listed = done("keys", "list", *at, "--json").stdout
    assert json.loads(listed) == [{"name": "ann"}, {"name": "bob"}]
    done("keys", "remove", "ann", *at)
    assert json.loads(done("keys", "list", *at, "--json").stdout) == [{"name": "bob"}]
    assert_one_line_error(call("keys", "remove", "ann", *at), "no key ann")
    assert list(tmp_path.iterdir()) == [file]


def test_a_sender_gets_its_variables(tmp_path: Path) -> None:
    arguments = ("keys", "add", "it's", "--file", str(tmp_path / "keys.json"), "--url", "https://lake/x y/")
    script = done(*arguments).stdout + b'printf "%s\\n" "$MICROMEGAS_TELEMETRY_URL" "$OTEL_EXPORTER_OTLP_HEADERS"'
    shell = subprocess.run(["sh"], input=script, capture_output=True, check=True, timeout=60)
    url, headers = shell.stdout.decode().splitlines()
    assert url == "https://lake/x y"
    (key,) = json.loads((tmp_path / "keys.json").read_text())
    assert urllib.parse.unquote(headers) == f"authorization=Bearer {key['key']}"
    fish = call(*arguments[:2], "x", *arguments[3:], "--shell", "fish")
    assert_one_line_error(fish, "--shell fish", "dotenv", code=2)


def test_a_file_that_holds_no_keys_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert_one_line_error(call("keys", "list", "--file", str(file)), str(file), "No such file")
    file.write_text('[{"name": "x", "secret": "s3cret"}]')
    lake = ("serve", "--lake", str(tmp_path / "lake"))
    refused = run(*lake, MICROMEGAS_API_KEYS_FILE=str(file))
    assert_one_line_error(refused, str(file), "lacks a text name")
    assert b"s3cret" not in refused.stderr
    both = run(*lake, MICROMEGAS_API_KEYS_FILE=str(file), MICROMEGAS_API_KEYS="[]")
    assert_one_line_error(both, "MICROMEGAS_API_KEYS", "leave one out")


@pytest.mark.parametrize("variable", ["MICROMEGAS_API_KEYS", "MICROMEGAS_API_KEYS_FILE"])
def test_a_list_without_keys_lets_nobody_in(tmp_path: Path, variable: str) -> None:
    file = tmp_path / "keys.json"
    done("keys", "add", "ann", "--file", str(file))
    done("keys", "remove", "ann", "--file", str(file))
    value = str(file) if variable.endswith("FILE") else "[]"
    with pytest.raises(CliError, match=r"list of API keys is empty.*keys add"):
        node_settings(ServiceFlags(lake=LakeFlags(tmp_path), http_port=0), {variable: value})
    assert node_settings(ServiceFlags(lake=LakeFlags(tmp_path), http_port=0), {variable: ""}).ingest is not None


def replicated(source: Service, target: Service, key: str, *arguments: str) -> dict[str, Any]:
    command = ("replicate", address(source), address(target), "--to-key", key, "--json")
    told: dict[str, Any] = json.loads(done(*command, *arguments).stdout)
    return told


def test_a_lake_is_copied_piece_by_piece(open_server: Service, keyed_server: Service, key: str) -> None:
    refused = call("replicate", address(open_server), address(keyed_server), MICROMEGAS_API_KEY=key)
    assert_one_line_error(refused, "api key", code=4)  # a key of the environment isn't sent to two servers
    first = replicated(open_server, keyed_server, key, "--process", PROCESS[:8])
    assert (first["processes"], first["present"]) == (1, 0)
    assert first["blocks"] > 0
    (every,) = open_server.query(COUNTS).to_pylist()
    rest = replicated(open_server, keyed_server, key)
    assert rest["present"] == first["blocks"]
    assert first["blocks"] + rest["blocks"] == every["n"]
    assert first["payload_bytes"] + rest["payload_bytes"] == every["bytes"] > 0
    assert keyed_server.query(COUNTS).to_pylist() == [every]
    assert keyed_server.query(LOGS).equals(open_server.query(LOGS))
    assert keyed_server.query(TIMES).equals(open_server.query(TIMES))
    again = replicated(open_server, keyed_server, key)
    assert (again["blocks"], again["present"], again["processes"]) == (0, every["n"], 0)
    nothing = done("replicate", address(open_server), address(keyed_server), "--to-key", key, "--end", "2001-01-01")
    assert nothing.stdout.startswith(b"0 blocks")


@pytest.mark.parametrize(
    "question",
    [
        ("processes", "--begin", "100000d"),
        ("logs", PROCESS, "--last", "100"),
        ("metrics", PROCESS),
        ("spans", PROCESS, "--limit", "100"),
        ("views",),
        ("views", "measures"),
        ("query", COUNTS),
    ],
    ids=lambda question: "-".join(question[:1]),
)
def test_the_copy_answers_alike(
    open_server: Service, keyed_server: Service, key: str, question: tuple[str, ...]
) -> None:
    replicated(open_server, keyed_server, key)

    def answer(service: Service, **environment: str) -> list[str]:
        rows = json.loads(done(*question, "--json", "--server", address(service), **environment).stdout)
        # blocks came at another time, and so in another order
        return sorted(json.dumps({**row, "last_update_time": None}) for row in rows)

    assert answer(keyed_server, MICROMEGAS_API_KEY=key) == answer(open_server) != []


def test_work_on_a_terminal_shows_how_far_it_is(open_server: Service) -> None:
    terminal, end = pty.openpty()
    command = [str(PROGRAM), "materialize", "log_entries", "--begin", "210m", "--end", "now"]
    with started([*command, "--server", address(open_server)], stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # which tells the end of a terminal
            while part := os.read(terminal, 4096):
                shown += part
        assert process.stdout is not None
        steps = process.stdout.read().splitlines()
        assert process.wait(60) == 0, shown
    os.close(terminal)
    assert [b"log_entries [" in step for step in steps] == [True] * 3
    assert b"orders" in shown


NOWHERE = ("--url", "http://127.0.0.1:1", "--server", "grpc://127.0.0.1:1", "--spool", "/nowhere")


def findings(*arguments: str, code: int = 0, **environment: str) -> dict[str, dict[str, str]]:
    finished = call("doctor", "--json", *arguments, **environment)
    assert finished.returncode == code, finished.stderr
    return {row["check"]: row for row in json.loads(finished.stdout)}


def test_a_healthy_deployment(open_server: Service, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    found = findings(
        *("--url", f"http://127.0.0.1:{open_server.http_port}"),
        *("--server", address(open_server), "--spool", str(tmp_path / "spool")),
        *("--api-url", f"http://127.0.0.1:{open_server.api_port}"),
    )
    assert {name for name, row in found.items() if row["state"] == "problem"} == set()
    assert {
        "ingestion",
        "queries",
        "clock",
        "telemetry",
        "daemon",
        "blocks",
        "senders",
        "http",
        "spool",
    } == found.keys()
    assert found["telemetry"]["found"].startswith("the newest block came ")


def test_what_is_wrong_is_said_with_the_next_step(keyed_server: Service, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{keyed_server.http_port}"
    found = findings("--url", url, "--server", address(keyed_server), "--lake", str(tmp_path), code=1)
    assert found["ingestion"]["state"] == "ok"
    assert found["ingestion key"]["next_step"] == "set MICROMEGAS_INGESTION_API_KEY"
    assert "MICROMEGAS_API_KEY" in found["queries"]["next_step"]
    assert found["lake"]["state"] == "problem"
    nowhere = call("doctor", *NOWHERE)
    assert_one_line_error(nowhere, "2 of 2 checks found a problem: ingestion, queries")
    assert b"micromegas serve" in nowhere.stdout


def test_ports_of_queries_are_looked_at(keyed_server: Service, key: str) -> None:
    asked = ("--url", f"http://127.0.0.1:{keyed_server.http_port}", "--server", address(keyed_server))
    api = ("--api-url", f"http://127.0.0.1:{keyed_server.api_port}")
    signed_in = {"MICROMEGAS_API_KEY": key, "MICROMEGAS_INGESTION_API_KEY": key}
    assert findings(*asked, *api, "--spool", "/nowhere", **signed_in)["http"]["found"].endswith("answers queries")
    assert findings(*asked, *api, code=1)["http"]["found"].endswith("refuses the key")
    ingestion = f"http://127.0.0.1:{keyed_server.http_port}"
    assert "answered 404" in findings(*asked, "--api-url", ingestion, code=1, **signed_in)["http"]["found"]
    assert findings(*asked, "--api-url", "http://127.0.0.1:1", code=1, **signed_in)["http"]["state"] == "problem"
    for place, told in ((f"127.0.0.1:{keyed_server.http_port}", "speaks another"), ("127.0.0.1:1", "no answer")):
        assert told in findings(*asked, "--pg", place, code=1, **signed_in)["postgresql"]["found"]


@pytest.mark.parametrize(("answer", "told"), [(b"S", "with TLS"), (b"N", "without TLS")])
def test_a_gateway_is_known_by_its_answer_about_tls(answer: bytes, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_once() -> None:
            with listening.accept()[0] as asked:
                assert asked.recv(100) == struct.pack(">II", 8, 80877103)
                asked.sendall(answer)

        answering = threading.Thread(target=answer_once)
        answering.start()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        found = findings(*NOWHERE, "--pg", place, code=1)["postgresql"]
        answering.join(60)
    assert (found["state"], found["found"]) == ("ok", f"{place} answers, {told}")


@pytest.mark.parametrize(
    "url", ["http://[", "http://127.0.0.1:port", "ftp://x", "127.0.0.1:9000", f"http://{'x' * 70}.y"]
)
def test_what_is_no_address_is_a_problem(url: str) -> None:
    found = findings("--url", url, "--server", "grpc://127.0.0.1:1", "--spool", "/nowhere", code=1)
    assert found["ingestion"]["state"] == "problem"
    assert url in found["ingestion"]["found"]


def test_a_key_that_no_header_carries_is_a_problem_and_not_shown(open_server: Service) -> None:
    url = f"http://127.0.0.1:{open_server.http_port}"
    arguments = ("--url", url, "--server", address(open_server), "--spool", "/nowhere")
    found = findings(*arguments, code=1, MICROMEGAS_INGESTION_API_KEY="s3cret\nkey")
    assert found["ingestion"]["state"] == "problem"
    assert "s3cret" not in str(found)


def test_an_ingestion_that_goes_away_in_the_middle_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_once() -> None:
            with listening.accept()[0] as asked:
                asked.recv(4096)
                asked.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            listening.accept()[0].close()

        answering = threading.Thread(target=answer_once)
        answering.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        found = findings("--url", url, "--server", "grpc://127.0.0.1:1", "--spool", "/nowhere", code=1)
        answering.join(60)
    assert found["ingestion"]["found"].startswith(f"no answer from {url}")


def test_an_address_gets_the_key_beside_it_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".micromegas").mkdir()
    (tmp_path / ".micromegas" / "config.json").write_text(
        json.dumps({"api_key_file": str(tmp_path / "key"), "profiles": {"here": {}}})
    )
    (tmp_path / "key").write_text("k-1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with KeyOfCaller() as server:
        asked = f"grpc://127.0.0.1:{server.port}"
        for connection, key in (
            (Connection(asked, None, None, uses_environment=False), None),
            (Connection(asked, "k-2", None, uses_environment=False), "Bearer k-2"),
            (Connection(asked, None, None), None),
            (Connection(asked, None, "here"), "Bearer k-1"),
            (Connection(asked, "k-2", "here"), "Bearer k-2"),
        ):
            with connected(connection) as client:
                assert client.query("SELECT 1").to_pylist() == [{"key": key}]
