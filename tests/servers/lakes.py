"""Empty lakes on each back end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from micromegas.config import LakeSettings

LAKE_BACKENDS = ["sqlite+folder", "postgres+s3"]


@contextmanager
def local_or_remote_lake(backend: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[LakeSettings]:
    """Settings of a lake on one of `LAKE_BACKENDS`: below the folder, or on the servers of the tests."""
    if backend == "sqlite+folder":
        yield LakeSettings(lake_dir=folder / "lake")
    else:
        servers = request.getfixturevalue("postgres_server"), request.getfixturevalue("s3_server")
        with remote_lake(*servers) as settings:
            yield settings


@contextmanager
def remote_lake(postgres: PostgresServer, s3: S3Server) -> Iterator[LakeSettings]:
    """Settings of a lake in a database and a bucket of its own."""
    bucket = s3.create_bucket()
    with postgres.database() as url:
        yield LakeSettings(database_url=url, object_store=bucket.url, object_store_options=bucket.options)
