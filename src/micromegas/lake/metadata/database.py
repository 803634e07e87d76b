"""Connections to the metadata database: read and write transactions with the same meaning on SQLite and PostgreSQL.

It must never retry by itself: a caller is told `LakeUnavailable` and decides.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

from micromegas.config import LakeSettings
from micromegas.lake.durable import make_folder
from micromegas.lake.errors import LakeError, LakeUnavailable
from micromegas.lake.metadata.gate import WriteGate
from micromegas.lake.metadata.prepared_read import PreparedRead

SQLITE_BUSY_S = 20.0
SQLITE_NEEDED = (3, 35)
"""The first version with RETURNING."""

POOL_WAIT_S = 20.0
PROGRAM_LIMIT_EXCEEDED = "54"
"""Class of SQLSTATE: something is too large for PostgreSQL, and will be the next time."""

WRITE_OPTION = "micromegas_write"
MIGRATION_LOCK_KEY = 0x6D6D_6C61_6B65
"""Key of the PostgreSQL advisory lock that migrations take: `mmlake` in ASCII."""


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: equal values are equal texts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class Database:
    """An engine with `read()` and `write()` transactions. Thread-safe: every transaction has its own connection."""

    def __init__(self, engine: sa.Engine, gate: WriteGate | None) -> None:
        self.engine = engine
        self._gate = gate

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads; never waits for writers."""
        with _database_faults(), self.engine.connect() as connection:
            yield connection

    def rows(self, question: PreparedRead, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What a single statement gives, of one moment, in the driver's own values.

        For questions that every query asks: a transaction around it would be two more round trips to a server, and
        SQLAlchemy's way takes longer than the database does.
        """
        dialect = self.engine.dialect
        text, parameters = question.for_dialect(dialect, values)
        with _database_faults(), closing(self.engine.raw_connection()) as pooled, _driver_faults(dialect):
            if not self.is_postgres:
                cursor = pooled.cursor()
                cursor.execute(text, parameters)
                return list(cursor.fetchall())
            driver: Any = pooled.driver_connection
            driver.autocommit = True
            try:
                return list(driver.execute(text, parameters).fetchall())
            finally:
                if not driver.closed:
                    driver.autocommit = False

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write: committed at the end of the block, rolled back when it raises."""
        with _database_faults():
            if self._gate is None:
                with self.engine.begin() as connection:
                    yield connection
            else:
                with self._gate.held(), self.engine.connect() as pooled:
                    connection = pooled.execution_options(**{WRITE_OPTION: True})
                    with connection.begin():
                        yield connection

    @contextmanager
    def migration(self) -> Iterator[sa.Connection]:
        """A write transaction that excludes every other migration of this database."""
        with self.write() as connection:
            if self.is_postgres:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK_KEY)))
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        if self._gate is not None:
            self._gate.close()


@contextmanager
def _database_faults() -> Iterator[None]:
    """Turn the driver's errors into ours, without the statement and its values in the text."""
    try:
        yield
    except exc.TimeoutError as error:
        raise LakeUnavailable(f"metadata database: no free connection within {POOL_WAIT_S:.0f} s") from error
    except exc.DBAPIError as error:
        cause = str(error.orig).strip().splitlines()
        text = f"metadata database: {cause[0] if cause else type(error.orig).__name__}"
        # Both drivers report some faults that no later try will mend by the same class as a full disk.
        is_lasting = (
            getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
            or (getattr(error.orig, "sqlstate", None) or "")[:2] == PROGRAM_LIMIT_EXCEEDED
        )
        is_operational = isinstance(error, (exc.OperationalError, exc.InterfaceError))
        if error.connection_invalidated or (is_operational and not is_lasting):
            raise LakeUnavailable(text) from error
        raise LakeError(text) from error


def driver_rows(
    connection: sa.Connection, statement: sa.Select[*tuple[Any, ...]], size: int
) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows of a statement in parts of at most `size`, with the driver's own values: SQLAlchemy takes as long to
    make its rows of them as the database takes to find them."""
    dialect = connection.dialect
    compiled = statement.compile(dialect=dialect)
    values = compiled.construct_params()
    parameters = values if compiled.positiontup is None else [values[name] for name in compiled.positiontup]
    # PostgreSQL gives rows in parts to cursors with a name only.
    name = ("driver_rows",) if dialect.name == "postgresql" else ()
    with _driver_faults(dialect), closing(connection.connection.cursor(*name)) as cursor:
        cursor.execute(str(compiled), parameters)
        while rows := cursor.fetchmany(size):
            yield rows


@contextmanager
def _driver_faults(dialect: sa.Dialect) -> Iterator[None]:
    """Turn the driver's errors into SQLAlchemy's."""
    errors = dialect.loaded_dbapi.Error
    try:
        yield
    except errors as error:
        raise exc.DBAPIError.instance(None, None, error, errors, dialect=dialect) from error


def open_database(settings: LakeSettings) -> Database:
    """Connect to the database that the settings name. SQLite files are created when missing, tables are not."""
    if settings.database_url is not None:
        return _open_postgres(settings.database_url, settings.database_pool_size)
    if settings.lake_dir is None:
        raise ValueError("neither a database address nor a lake folder is given")
    try:
        make_folder(settings.lake_dir.absolute())
        return _open_sqlite(settings.lake_dir.absolute() / "metadata.db", settings.database_pool_size)
    except OSError as error:
        raise LakeUnavailable(f"lake folder {settings.lake_dir}: {error.strerror}") from error


def _open_postgres(url: str, pool_size: int) -> Database:
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        address,
        # Whoever waited for a lock must see what its holder committed, whatever the database has as its default.
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_WAIT_S,
        # A restarted server is noticed before a transaction begins, not in the middle of one.
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "micromegas",
            # A peer that vanished, or a program that was stopped while it had its turn, must not hold up all others.
            "tcp_user_timeout": 30_000,
            "options": "-c lock_timeout=20s -c idle_in_transaction_session_timeout=300s",
        },
        json_serializer=canonical_json,
        hide_parameters=True,
    )
    return Database(engine, None)


def _open_sqlite(path: Path, pool_size: int) -> Database:
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise LakeError(f"sqlite {sqlite3.sqlite_version} is too old: 3.35 is needed")
    gate = WriteGate(path.with_suffix(".gate"))
    try:
        # The mode stays with the file. Changing it fails at once, without waiting, when another program is reading.
        with gate.held(), closing(sqlite3.connect(path, timeout=SQLITE_BUSY_S)) as first:
            first.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        gate.close()
        raise LakeUnavailable(f"metadata database: {error}") from error
    engine = sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=64,
        pool_timeout=POOL_WAIT_S,
        connect_args={"timeout": SQLITE_BUSY_S, "check_same_thread": False},
        json_serializer=canonical_json,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver's own transaction handling would hide BEGIN from us.
        connection.isolation_level = None
        # An acknowledged block survives a power cut only with FULL: NORMAL syncs at checkpoints alone.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        # Block ids are random: with the default 2 MB every commit reads the pages of their index again.
        connection.execute("PRAGMA cache_size=-32768")
        # Fewer, larger checkpoints write a page that many commits changed once (16 MB of log at most in between).
        connection.execute("PRAGMA wal_autocheckpoint=4000")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(WRITE_OPTION, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return Database(engine, gate)
