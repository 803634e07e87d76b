"""One gateway per back end for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from postgres_gateway.beside import Both
from postgres_gateway.gateway import Asked, RunningGateway
from psycopg import sql
from query.committed import commit_recording
from query.traffic import MadeTraffic
from servers.lakes import LAKE_BACKENDS, local_or_remote_lake
from servers.postgres import PostgresServer

from micromegas.lake import Lake

MESSAGES = ["hello", "it's 'quoted'", "", "tab\tnew\nline \\ back", "öne ☃", "NULL", "ERROR {a,b}"]
VALUES = [1.5, 0.1, -0.0, 1e300, 1e-9, 123456789.0]


@pytest.fixture(scope="session", params=LAKE_BACKENDS)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with ExitStack() as stack:
        settings = stack.enter_context(local_or_remote_lake(request.param, tmp_path_factory.mktemp("asked"), request))
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


@pytest.fixture(scope="module")
def same_rows(asked: Asked, postgres_server: PostgresServer) -> Iterator[str]:
    """A database with the logs of one process."""
    with postgres_server.database() as url:
        with psycopg.connect(asked.gateway.dsn()) as ours, psycopg.connect(url, autocommit=True) as theirs:
            theirs.execute(
                'CREATE TABLE log_entries (time timestamptz, process_id text, level int, msg text COLLATE "C")'
            )
            rows = ours.execute("SELECT time, process_id, level, msg FROM log_entries").fetchall()
            theirs.cursor().executemany("INSERT INTO log_entries VALUES (%s, %s, %s, %s)", rows)
            for setting in ("timezone TO 'UTC'", "default_transaction_read_only TO on"):
                theirs.execute(sql.SQL(f"ALTER DATABASE {{}} SET {setting}").format(sql.Identifier(theirs.info.dbname)))
        yield url


@pytest.fixture(scope="module")
def long_sessions(asked: Asked, same_rows: str) -> Iterator[Both]:
    """For what is said very often, and tidies up."""
    with (
        psycopg.connect(asked.gateway.dsn(), autocommit=True) as ours,
        psycopg.connect(same_rows, autocommit=True) as theirs,
    ):
        yield Both(ours, theirs)


@pytest.fixture
def both(asked: Asked, same_rows: str) -> Iterator[Both]:
    with (
        psycopg.connect(asked.gateway.dsn(), autocommit=True) as ours,
        psycopg.connect(same_rows, autocommit=True) as theirs,
    ):
        yield Both(ours, theirs)
