"""Fixtures for everybody: real servers, lakes on both back ends. Servers start on first use, end with the session."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Helper modules of the tests (`servers`, `senders`, `spools`) are found from here in every import mode.
sys.path.insert(0, str(Path(__file__).parent))

from servers.identity_provider import IdentityProviderServer
from servers.lakes import LAKE_BACKENDS, local_or_remote_lake
from servers.postgres import PostgresServer, running_postgres
from servers.s3 import S3Server, running_s3
from spools import spool_below

from micromegas.config import LakeSettings
from micromegas.lake import Lake


@pytest.fixture(scope="session", autouse=True)
def spool_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test writes into the user's own spool, whatever it starts, and in whatever fixture."""
    with spool_below(tmp_path_factory.mktemp("state")) as spool:
        yield spool


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a fresh database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 emulator."""
    with running_s3() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[IdentityProviderServer]:
    """An identity provider of one test, which may change what it says."""
    running = IdentityProviderServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def module_provider() -> Iterator[IdentityProviderServer]:
    """An identity provider for all tests of a module, which leave it as it is."""
    running = IdentityProviderServer()
    yield running
    running.close()


@pytest.fixture(params=LAKE_BACKENDS)
def lake_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LakeSettings]:
    """Settings of an empty lake on each back end."""
    with local_or_remote_lake(request.param, tmp_path, request) as settings:
        yield settings


@pytest.fixture
def clock() -> Callable[[], int]:
    """The clock of `lake`, ns since the epoch: the machine's, unless a module has a fixture of this name."""
    return time.time_ns


@pytest.fixture
def lake(lake_backend: LakeSettings, clock: Callable[[], int]) -> Iterator[Lake]:
    """An open, empty lake on each back end."""
    with Lake.open(lake_backend, clock) as opened:
        yield opened
