"""Every client over TLS: who trusts the authority of the server's certificate is served as without, who doesn't isn't.

The certificate names `localhost` only: clients look at the name, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import psycopg
import pytest
from adbc_driver_flightsql import DatabaseOptions
from clients.published import PublishedPackage
from clients.test_other_languages import (
    N_LOGS,
    PROCESS,
    assert_grafana_is_served,
    assert_jdbc_is_served,
)
from clients.toolchains import go_program, java_command, rust_program, told
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import Service, serving
from servers.authority import Authority
from servers.ports import free_port

import micromegas
from micromegas.client import ServerUnreachable
from micromegas.config import LakeSettings

COUNT = f"SELECT count(*) AS n FROM log_entries WHERE process_id = '{PROCESS}'"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signed nothing of ours."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def pg_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, authority: Authority, pg_port: int) -> Iterator[Service]:
    lake = LakeSettings(lake_dir=tmp_path_factory.mktemp("tls") / "lake")
    pem = str(authority.issue("localhost"))
    flags = ("--tls-certificate", pem, "--tls-key", pem, "--pg-port", str(pg_port))
    with serving(lake, "serve", *flags, ca_file=authority.file) as running:
        requests = recording("logs").requests
        assert_all_accepted(requests, post_all(running.http_port, requests, ca_file=authority.file))
        yield running


@pytest.fixture
def endpoint(service: Service) -> str:
    return f"localhost:{service.flight_port}"


def test_ours(endpoint: str, authority: Authority, stranger: Authority) -> None:
    for scheme in ("grpc+tls", "https"):
        with micromegas.connect(f"{scheme}://{endpoint}", ca_file=authority.file) as client:
            assert client.query_arrow(COUNT).to_pylist() == [{"n": N_LOGS}]
    elsewhere = endpoint.replace("localhost", "127.0.0.1")
    for address, ca_file in (
        (f"grpc+tls://{endpoint}", stranger.file),
        (f"grpc://{endpoint}", authority.file),
        (f"grpc+tls://{elsewhere}", authority.file),
    ):
        with micromegas.connect(address, ca_file=ca_file, retries=0) as client, pytest.raises(ServerUnreachable):
            client.query_arrow(COUNT)


def test_the_command_line(endpoint: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    command = [sys.executable, "-m", "micromegas", "query", COUNT, "--json", "--server", f"grpc+tls://{endpoint}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [{"n": N_LOGS}]


def test_the_published_client(published: PublishedPackage, endpoint: str, authority: Authority) -> None:
    script = f"""
import certifi
certifi.where = lambda: {authority.file!r}  # the file of the authorities that it trusts
import micromegas
print(micromegas.connect("grpc+tls://{endpoint}").query({COUNT!r})["n"][0])
"""
    assert published.run(script).strip() == str(N_LOGS)


def adbc(endpoint: str, ca_file: str) -> adbc_driver_flightsql.dbapi.Connection:
    trusted = {DatabaseOptions.TLS_ROOT_CERTS.value: Path(ca_file).read_text(encoding="ascii")}
    return adbc_driver_flightsql.dbapi.connect(f"grpc+tls://{endpoint}", db_kwargs=trusted, autocommit=True)


def test_adbc(endpoint: str, authority: Authority, stranger: Authority) -> None:
    with adbc(endpoint, authority.file) as connection, connection.cursor() as cursor:
        cursor.execute(COUNT)
        assert cursor.fetchall() == [(N_LOGS,)]
    with (
        adbc(endpoint, stranger.file) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="certificate"),
    ):
        cursor.execute(COUNT)


def test_jdbc(endpoint: str, authority: Authority) -> None:
    url = f"jdbc:arrow-flight-sql://{endpoint}/?useEncryption=true&tlsRootCerts={authority.file}"
    assert_jdbc_is_served(told([*java_command("java"), url, PROCESS]))


def test_go(endpoint: str, authority: Authority) -> None:
    assert told([go_program("go"), endpoint, PROCESS, authority.file])["logs"] == str(N_LOGS)


def test_grafana(endpoint: str, authority: Authority) -> None:
    assert_grafana_is_served(told([go_program("grafana"), endpoint, "", PROCESS, authority.file]))


def test_rust(endpoint: str, authority: Authority) -> None:
    answers = told([rust_program("rust", "flight-probe"), f"https://{endpoint}", PROCESS, authority.file])
    assert answers["logs"] == str(N_LOGS)


def test_postgresql(service: Service, pg_port: int, authority: Authority, stranger: Authority) -> None:
    place = f"host=localhost port={pg_port} dbname=micromegas user=ann sslmode=verify-full"
    with psycopg.connect(f"{place} sslrootcert={authority.file}") as connection:
        assert connection.execute(COUNT).fetchone() == (N_LOGS,)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(f"{place} sslrootcert={stranger.file}")


def test_curl(service: Service, authority: Authority) -> None:
    command = ["curl", "-sS", "--compressed", "--cacert", authority.file, "-H", "content-type: application/json"]
    command += ["-d", json.dumps({"sql": COUNT}), f"https://localhost:{service.api_port}/api/query"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"n": N_LOGS}]
