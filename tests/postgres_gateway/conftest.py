"""One gateway per back end for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked, RunningGateway
from query.committed import commit_recording
from query.traffic import MadeTraffic
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from micromegas.config import LakeSettings
from micromegas.lake import Lake

MESSAGES = ["hello", "it's 'quoted'", "", "tab\tnew\nline \\ back", "öne ☃", "NULL", "ERROR {a,b}"]
VALUES = [1.5, 0.1, -0.0, 1e300, 1e-9, 123456789.0]


@pytest.fixture(scope="session", params=["sqlite+folder", "postgres+s3"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with ExitStack() as stack:
        if request.param == "sqlite+folder":
            settings = LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))
        else:
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            s3: S3Server = request.getfixturevalue("s3_server")
            database, bucket = postgres.create_database(), s3.create_bucket()
            stack.callback(postgres.drop_database, database)
            settings = LakeSettings(
                database_url=postgres.url(database), object_store=bucket.url, object_store_options=bucket.options
            )
        lake = stack.enter_context(Lake.open(settings))
        traffic = MadeTraffic(lake)
        first = traffic.next_log_time()
        traffic.logs(*MESSAGES)
        traffic.values(*VALUES)
        commit_recording(lake, "py_encoder")
        gateway = stack.enter_context(RunningGateway(lake))
        thread_id = traffic.thread.stream_id
        yield Asked(gateway, traffic.process_id, thread_id, first, MESSAGES, VALUES)


@pytest.fixture
def connection(asked: Asked) -> Iterator[psycopg.Connection[Any]]:
    """A session of psycopg, outside of transactions."""
    with psycopg.connect(asked.gateway.dsn(), autocommit=True) as opened:
        yield opened
