"""Lakes that live as long as a test module: starting servers is what costs time here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.serving import Service, serving
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from micromegas.config import LakeSettings

LAKE_BACKENDS = ["sqlite+folder", "postgres+s3"]


@pytest.fixture(scope="module", params=LAKE_BACKENDS)
def module_lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeSettings]:
    """Settings of an empty lake on each back end, shared by the tests of a module."""
    if request.param == "sqlite+folder":
        yield LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))
        return
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    s3: S3Server = request.getfixturevalue("s3_server")
    database, bucket = postgres.create_database(), s3.create_bucket()
    yield LakeSettings(
        database_url=postgres.url(database), object_store=bucket.url, object_store_options=bucket.options
    )
    postgres.drop_database(database)


@pytest.fixture
def folder_lake(tmp_path: Path) -> LakeSettings:
    """Settings of an empty lake on the embedded default."""
    return LakeSettings(lake_dir=tmp_path / "lake")


@pytest.fixture(scope="module")
def service(module_lake: LakeSettings) -> Iterator[Service]:
    """A server on each back end, shared by the tests of a module."""
    with serving(module_lake) as started:
        yield started
