"""Other people's clients against the all-in-one server, which holds recorded traffic of real senders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.published import PINNED_CLIENT, SCENARIOS, PublishedClient, PublishedPackage
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import Service, serving
from kept import python_with
from servers.lakes import remote_lake
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from micromegas.config import LakeSettings


@pytest.fixture(scope="session")
def folder_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running all-in-one server that has taken the recordings of `SCENARIOS`, over SQLite and a folder."""
    with serving_recordings(LakeSettings(lake_dir=tmp_path_factory.mktemp("clients") / "lake")) as running:
        yield running


@pytest.fixture(scope="session")
def remote_settings(postgres_server: PostgresServer, s3_server: S3Server) -> Iterator[LakeSettings]:
    """An empty lake on PostgreSQL and the S3 emulator."""
    with remote_lake(postgres_server, s3_server) as settings:
        yield settings


@pytest.fixture(scope="session")
def remote_service(remote_settings: LakeSettings) -> Iterator[Service]:
    """As `folder_service`, over PostgreSQL and the S3 emulator."""
    with serving_recordings(remote_settings) as running:
        yield running


@contextlib.contextmanager
def serving_recordings(settings: LakeSettings) -> Iterator[Service]:
    with serving(settings) as running:
        for name in SCENARIOS:
            requests = recording(name).requests
            assert_all_accepted(requests, post_all(running.http_port, requests))
        yield running


@pytest.fixture(params=["folder_service", "remote_service"], ids=["sqlite+folder", "postgres+s3"])
def service(request: pytest.FixtureRequest) -> Service:
    """A server with the recordings, on each back end."""
    running: Service = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def address(service: Service) -> str:
    return address_of(service)


def address_of(service: Service) -> str:
    return f"grpc://127.0.0.1:{service.flight_port}"


@pytest.fixture(scope="session")
def published_client_python() -> Path:
    return python_with("client032", [PINNED_CLIENT], Path(__file__).with_name("constraints.txt"))


@pytest.fixture(scope="session")
def published(published_client_python: Path) -> Iterator[PublishedPackage]:
    with PublishedPackage(published_client_python) as package:
        yield package


@pytest.fixture
def published_client(published: PublishedPackage, address: str) -> PublishedClient:
    return PublishedClient(published, address)
