"""The command line as people and supervisors use it: real processes, one-line errors, clean ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from cli.calling import call
from deadlines import started
from e2e.posting import Sender, assert_all_accepted, post_all, wait_until
from e2e.recordings import recording
from e2e.serving import FREE_PORTS, PROGRAM, Service, serving
from query.traffic import MadeTraffic

from micromegas.config import LakeSettings
from micromegas.lake import Lake


def run(*arguments: str, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
    return subprocess.run(
        [str(PROGRAM), *arguments],
        capture_output=True,
        input=stdin,
        timeout=120,
        check=False,
        env=inherited | environment,
    )


def assert_one_line_error(done: subprocess.CompletedProcess[bytes], *parts: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr.decode()
    lines = [line for line in done.stderr.decode().splitlines() if " INFO " not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("micromegas: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("cli") / "lake")) as running:
        requests = recording("tiny").requests
        assert_all_accepted(requests, post_all(running.http_port, requests))
        yield running


@pytest.fixture
def server(service: Service) -> str:
    return f"grpc://127.0.0.1:{service.flight_port}"


LOGS = "SELECT level, msg, time FROM log_entries ORDER BY time"


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.decode().startswith("micromegas ")


def test_query_as_table_is_the_default(server: str) -> None:
    done = run("query", LOGS, "--server", server)
    assert done.returncode == 0, done.stderr
    assert b"level" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].endswith(b"rows")


def test_query_in_every_format(server: str, tmp_path: Path) -> None:
    rows = json.loads(run("query", LOGS, "--server", server, "--format", "json").stdout)
    assert rows
    lines = run("query", LOGS, "--server", server, "--format", "csv").stdout.decode()
    assert lines.startswith('"level","msg","time"')
    table = pa.ipc.open_stream(run("query", LOGS, "--server", server, "--format", "arrow").stdout).read_all()
    assert table.column("msg").to_pylist() == [row["msg"] for row in rows]
    objects = run("query", LOGS, "--server", server, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in objects] == rows
    assert json.loads(run("query", LOGS, "--server", server, "--json").stdout) == rows
    statement = tmp_path / "statement.sql"
    statement.write_text(LOGS)
    assert json.loads(run("query", "--file", str(statement), "--server", server, "--json").stdout) == rows
    output = tmp_path / "rows.parquet"
    assert run("query", LOGS, "--server", server, "-o", str(output)).returncode == 0
    assert pyarrow.parquet.read_table(output).column("msg").to_pylist() == [row["msg"] for row in rows]
    piped = run("query", LOGS, "--server", server, "--format", "parquet").stdout
    assert pyarrow.parquet.read_table(pa.BufferReader(piped)).num_rows == len(rows)


def test_query_range_limit_and_standard_input(server: str) -> None:
    def count(*arguments: str) -> int:
        done = run("query", "-", "--server", server, "--format", "json", *arguments, stdin=LOGS.encode())
        assert done.returncode == 0, done.stderr
        return len(json.loads(done.stdout))

    every = count()
    assert count("--begin", "2001-01-01") == every
    assert count("--end", "2001-01-01T00:00:00Z") == 0
    assert count("--begin", "-1ms", "--end", "now") == 0
    assert count("--begin", "20000d") == every
    assert count("--limit", "1") == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["SELEC"], ["SELEC"]),
        (["SELECT * FROM nowhere"], ["nowhere"]),
        (["--file", "/no/such/file"], ["/no/such/file", "No such file"]),
        (["SELECT 1", "-o", "/nonexistent/folder/file.csv"], ["--output", "No such file"]),
    ],
)
def test_query_errors_are_one_line(server: str, arguments: list[str], parts: list[str]) -> None:
    assert_one_line_error(run("query", *arguments, "--server", server), *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["query", " "], ["no statement"]),
        (["query", "--file", "/dev/null"], ["no statement"]),
        (["query", "SELECT 1", "--file", "x.sql"], ["--file", "leave one out"]),
        (["query", "SELECT 1", "--begin", "later"], ["--begin later", "1h"]),
        (["query", "SELECT 1", "--format", "xml"], ["--format xml", "json"]),
        (["query", "SELECT 1", "--format", "csv", "--json"], ["--json", "leave one out"]),
        (["query", "SELECT 1", "--server", "ftp://nowhere"], ["ftp://nowhere", "grpc://host:port"]),
        (["query", "SELECT 1", "--server", "nowhere:50051"], ["nowhere:50051", "grpc://host:port"]),
        (["logs", "--level", "loud"], ["--level loud", "warn"]),
        (["logs", "--first", "1", "--follow"], ["--first", "leave one out"]),
        (["spans", "0", "--types", "none"], ["--types none", "both"]),
        (["serve"], ["--lake DIR"]),
        (["ingest", "--database-url", "postgresql://x"], ["--object-store"]),
    ],
)
def test_values_that_cannot_be_are_wrong_usage(arguments: list[str], parts: list[str]) -> None:
    assert_one_line_error(call(*arguments), *parts, code=2)


def test_what_cannot_be_written_is_one_line(server: str, tmp_path: Path) -> None:
    numbers = "SELECT value FROM generate_series(1, 100000)"
    full = "No space left on device"
    assert_one_line_error(run("query", numbers, "--server", server, "-o", "/dev/full"), "--output /dev/full", full)
    for arguments in ([numbers, "--format", "csv"], [numbers, "--json"], ["SELECT 1"]):
        command = [str(PROGRAM), "query", *arguments, "--server", server]
        with Path("/dev/full").open("wb") as nowhere:
            done = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, timeout=120, check=False)
        assert_one_line_error(done, full)
    interval = call("query", "SELECT INTERVAL '1 day' AS i", "--server", server, "-o", str(tmp_path / "rows.parquet"))
    assert_one_line_error(interval, "parquet", "interval", "--format arrow")
    assert not list(tmp_path.iterdir())


def test_no_server_is_one_line_with_the_next_step() -> None:
    done = run("query", "SELECT 1", "--server", "grpc://127.0.0.1:1")
    assert_one_line_error(done, "127.0.0.1:1", "micromegas serve", code=3)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["quer"], ["quer", "see  micromegas --help"]),
        (["query", "SELECT 1", "--colour"], ["--colour", "see  micromegas query --help"]),
        (["query", "SELECT 1", "--limit", "many"], ["--limit", "see  micromegas query --help"]),
        (["retire", "log_entries"], ["instance", "see  micromegas retire --help"]),
        (["spool", "sink"], ["sink", "see  micromegas spool --help"]),
    ],
)
def test_wrong_usage_is_one_line_with_the_help_to_read(arguments: list[str], parts: list[str]) -> None:
    assert_one_line_error(run(*arguments), *parts, code=2)


def test_without_a_command_there_is_help() -> None:
    done = run()
    assert done.returncode == 2
    assert b"query-server" in done.stdout + done.stderr
    assert b"micromegas: " not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    done = run("--show-completion", shell)
    assert done.returncode == 0
    assert b"_MICROMEGAS_COMPLETE" in done.stdout
    words = {"COMP_WORDS": "micromegas qu", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "micromegas qu"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    completed = run(_MICROMEGAS_COMPLETE=f"complete_{shell}", **words)
    assert b"query" in completed.stdout
    assert b"daemon" not in completed.stdout


def test_a_failed_query_leaves_no_file(server: str, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    assert run("query", "SELEC", "--server", server, "-o", str(output)).returncode == 1
    assert not output.exists()
    # nor half of one, in whose place another was
    output.write_bytes(b"before")
    late = "SELECT value, 1 / (value - 500000) AS x FROM generate_series(1, 1000000)"
    assert call("query", late, "--server", server, "-o", str(output)).returncode == 1
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("rows.csv", b"before")]


def test_a_reader_that_leaves_is_no_error_text(server: str) -> None:
    sql = "SELECT value, repeat('x', 1000) AS pad FROM generate_series(1, 1000000)"
    command = [str(PROGRAM), "query", sql, "--server", server, "--format", "csv"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(60)


def test_a_database_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    done = run(
        "serve",
        "--lake",
        str(tmp_path),
        "--database-url",
        url,
        "--http-port",
        "0",
        "--flight-port",
        "0",
        "--api-port",
        "0",
    )
    assert_one_line_error(done, "--database-url")
    assert b"secret" not in done.stderr
    done = run("serve", "--lake", str(tmp_path), "--database-url", "mysql://x")
    assert_one_line_error(done, "postgresql://")


def test_a_lake_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert_one_line_error(
        run("serve", "--lake", str(tmp_path / "file"), *FREE_PORTS),
        "file",
    )


@pytest.mark.parametrize("flag", ["--http-port", "--flight-port", "--api-port"])
def test_a_port_in_use_is_one_line(service: Service, tmp_path: Path, flag: str) -> None:
    taken = {"--http-port": service.http_port, "--flight-port": service.flight_port, "--api-port": service.api_port}
    done = run("serve", "--lake", str(tmp_path / "lake"), *FREE_PORTS, flag, str(taken[flag]))
    assert_one_line_error(done, str(taken[flag]), flag)


def test_bad_keys_are_one_line_and_not_shown(tmp_path: Path) -> None:
    done = run("serve", "--lake", str(tmp_path), MICROMEGAS_API_KEYS='[{"name": "x", "secret": "s3cret"}]')
    assert_one_line_error(done, "api keys")
    assert b"s3cret" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain_and_exit_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    command = [str(PROGRAM), "serve", "--lake", str(tmp_path / "lake"), *FREE_PORTS]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        while not lines or lines[-1] != "ready\n":
            lines.append(process.stdout.readline())
            assert lines[-1], "ended before it was ready"
        addresses = dict(line.split() for line in lines[:-1])
        assert addresses["ingestion"].startswith("http://127.0.0.1:")
        assert addresses["queries"].startswith("grpc://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(60) == 0
        port = int(addresses["queries"].rsplit(":", 1)[1])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)


def test_roles_share_a_lake(tmp_path: Path) -> None:
    settings = LakeSettings(lake_dir=tmp_path / "lake")
    with (
        serving(settings, "ingest") as ingest,
        serving(settings, "query-server") as queries,
        serving(settings, "daemon"),
    ):
        requests = recording("tiny").requests
        assert_all_accepted(requests, post_all(ingest.http_port, requests))
        assert queries.query("SELECT * FROM log_entries").num_rows > 0
        sql = "SELECT * FROM list_partitions() WHERE num_rows > 0"
        wait_until(lambda: queries.query(sql).num_rows > 0, "the daemon writes partitions")


def test_api_keys_guard_both_doors(tmp_path: Path) -> None:
    keys = '[{"name": "me", "key": "k3y"}]'
    command = [str(PROGRAM), "serve", "--lake", str(tmp_path / "lake"), *FREE_PORTS]
    environment = os.environ | {"MICROMEGAS_API_KEYS": keys}
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        assert process.stdout is not None
        addresses = dict(line.split() for line in iter(process.stdout.readline, "ready\n"))
        try:
            sender = Sender(int(addresses["ingestion"].rsplit(":", 1)[1]))
            assert sender.post("/ingestion/insert_process", b"").status == 401
            assert sender.request("GET", "/health").status == 200
            sender.close()
            assert_one_line_error(run("query", "SELECT 1", "--server", addresses["queries"]), "api key", code=4)
            done = run("query", "SELECT 1", "--server", addresses["queries"], MICROMEGAS_API_KEY="k3y")
            assert done.returncode == 0
        finally:
            process.terminate()
            assert process.wait(60) == 0


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if (name + ".").startswith({package!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["micromegas", *{arguments!r}]
from micromegas.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", ["--version"], "micromegas[client]"),
        ("pyarrow", ["query", "SELECT 1"], "micromegas[client]"),
        ("datafusion", ["serve", "--lake", "x"], "micromegas[server]"),
        ("google", ["query-server", "--lake", "x"], "micromegas[server]"),
        ("granian", ["ingest", "--lake", "x"], "micromegas[server]"),
        ("micromegas.lake", ["serve", "--lake", "x"], "micromegas[server]"),
    ],
)
def test_a_missing_extra_is_named(package: str, arguments: list[str], extra: str, tmp_path: Path) -> None:
    script = BLOCKED.format(package=package, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False, cwd=tmp_path)
    assert_one_line_error(done, f"pip install '{extra}'", "-server" if package.startswith("micromegas.") else package)
    assert not (tmp_path / "x").exists()


def test_the_client_needs_nothing_of_the_server(server: str) -> None:
    """`micromegas query` must work where only the client's extra is installed."""
    script = f"""
import sys

LIBRARIES = {{"datafusion", "google", "granian", "sqlalchemy", "obstore", "numpy"}}
OURS = {{"_engine", "_transport", "daemon", "ingest", "lake", "query", "serve", "views"}}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        package, _, rest = name.partition(".")
        if package in LIBRARIES or package == "micromegas" and rest.partition(".")[0] in OURS:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["micromegas", "query", "SELECT 1 AS one", "--server", {server!r}, "--format", "json"]
from micromegas.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [{"one": 1}]


def test_partitions_are_made_and_retired_by_hand(service: Service, server: str) -> None:
    hour = ("--begin", "2h", "--end", "now", "--server", server)
    done = run("materialize", "log_entries", *hour, "--delta", "60")
    assert done.returncode == 0, done.stderr
    assert b"log_entries [" in done.stdout
    assert run("materialize", "log_entries", *hour, "--again", "--delta", "7").returncode == 1
    done = run("retire", "log_entries", "global", "--begin", "2h", "--end", "now", "--server", server)
    assert done.returncode == 0, done.stderr
    assert b"partitions retired" in done.stdout
    done = run("retire", "it's", "o'clock", "--begin", "2h", "--end", "now", "--server", server)
    assert b"it's/o'clock: 0 partitions retired" in done.stdout
    assert_one_line_error(run("materialize", "it's", *hour), "unknown view set")
    assert_one_line_error(run("materialize", "log_entries", "--begin", "soon", "--end", "now"), "--begin soon", code=2)


def test_orders_are_for_those_whom_the_server_names(tmp_path: Path) -> None:
    environment = {
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "ops", "key": "0ps"}, {"name": "analyst", "key": "k3y"}]),
        "MICROMEGAS_ADMINS": '["ops"]',
    }
    order = ("retire", "log_entries", "global", "--begin", "1h", "--end", "now", "--server")
    with serving(LakeSettings(lake_dir=tmp_path / "lake"), environment=environment, api_key="k3y") as service:
        address = f"grpc://127.0.0.1:{service.flight_port}"
        assert_one_line_error(run(*order, address, "--api-key", "k3y"), "retire_partitions", "not found")
        assert run(*order, address, "--api-key", "0ps").returncode == 0
    bad = run("serve", "--lake", str(tmp_path / "lake"), MICROMEGAS_ADMINS='["ops"]')
    assert_one_line_error(bad, "admins are named")
    bad = run("serve", "--lake", str(tmp_path / "lake"), MICROMEGAS_ADMINS='{"ops": 1}')
    assert_one_line_error(bad, "admins: not a JSON array of names")


def test_retention_deletes_when_told_to(tmp_path: Path) -> None:
    settings = LakeSettings(lake_dir=tmp_path / "lake")
    old = time.time_ns() - 3 * 86_400 * 1_000_000_000
    with Lake.open(settings, lambda: old) as lake:
        MadeTraffic(lake).logs("old")
    command = ("retention", "--lake", str(tmp_path / "lake"), "--retention-days", "1", "--json")

    def expired(*more: str) -> int:
        done = run(*command, *more)
        assert done.returncode == 0, done.stderr
        return next(row["expired"] for row in json.loads(done.stdout) if row["kind"] == "raw")

    assert [expired(), expired("--delete"), expired()] == [1, 1, 0]
    with Lake.open(settings) as lake:
        assert lake.metadata.blocks() == []


def test_retention_tells_what_policies_would_delete(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    Lake.open(LakeSettings(lake_dir=tmp_path / "lake")).close()
    policies = tmp_path / "policies.toml"
    policies.write_text("[[raw]]\nname = 'traces'\nstreams = \"array_has(tags, 'cpu')\"\ndays = 7\n")
    command = ("retention", "--lake", lake, "--retention-policies", str(policies))
    done = run(*command, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [(row["policy"], row["days"]) for row in json.loads(done.stdout)] == [
        ("traces", 7),
        ("default", 90),
        ("default", 90),
    ]
    policies.write_text("[[raw]]\ndays = 7\nstreams = 'nothing = 1'")
    assert_one_line_error(run(*command), "retention policy 'raw 1', streams", "nothing")
    assert_one_line_error(run("daemon", *command[1:]), "retention policy 'raw 1', streams", "nothing")
    policies.write_text("[[raw]]\ndays = 'x'")
    assert_one_line_error(run(*command), "raw entry 1: days")
    assert_one_line_error(run("retention", "--lake", str(tmp_path / "typo")), "no lake there")
    assert not (tmp_path / "typo").exists()
    assert_one_line_error(run(*command[:3], "--retention-policies", "/no/file"), "/no/file", "No such file")


def test_where_the_usual_port_of_http_is_taken_a_server_goes_on_without(tmp_path: Path) -> None:
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # somebody else listens there: as good
            other.bind(("127.0.0.1", 3000))
            other.listen()
        command = [str(PROGRAM), "query-server", "--lake", str(tmp_path / "lake"), "--flight-port", "0"]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
            assert server.stdout is not None
            told = []
            for line in server.stdout:
                told.append(line)
                if line == "ready\n":
                    break
            server.terminate()
            assert server.wait(60) == 0, told
    assert any("http can't listen on 127.0.0.1 port 3000" in line and "--api-port" in line for line in told), told
    assert not any(line.startswith("api ") for line in told)
