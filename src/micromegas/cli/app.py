"""The commands and their flags. Bodies live in modules of their own, imported when a command runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from micromegas.cli.administration import add_administration
from micromegas.cli.errors import FAILED, INTERRUPTED, READER_LEFT, CliError, missing_extra
from micromegas.cli.flag_groups import command
from micromegas.cli.questions import add_questions
from micromegas.cli.service_options import (
    AllowHost,
    AnyPgPort,
    AnyWorkers,
    ApiPort,
    EngineFlags,
    FlightPort,
    GatewayWorkers,
    Host,
    HttpPort,
    LakeFlags,
    PgPort,
    RetentionFlags,
    SelfTelemetry,
    ServiceFlags,
    TlsFlags,
    Workers,
)
from micromegas.wire.printable import printable

app = typer.Typer(
    help="Every log, metric and span of every process, kept, and asked in SQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


# the base of all complaints about a command line has no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run() -> None:
    """Runs the command line; tells every expected failure in one line on standard error."""
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        code = _tell_usage(error)
    except CliError as error:
        sys.stderr.write(f"micromegas: {printable(str(error))}\n")
        code = error.exit_code
    except ModuleNotFoundError as error:
        sys.exit(missing_extra(error))
    except BrokenPipeError:
        # the reader of our output has left, as `head` does
        _leave_output()
        code = READER_LEFT
    except OSError as error:
        # whatever touches a file of its own tells of it by name: this is our output, say on a full disk
        sys.stderr.write(f"micromegas: {printable(str(error.strerror or error))}\n")
        _leave_output()
        code = FAILED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    sys.exit(code)


def _leave_output() -> None:
    """Nothing that is still held may be written at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_usage(error: Any) -> int:
    """A line for a command line that can't be understood."""
    line = " ".join(error.format_message().split())
    if line:  # without any command the help has been shown instead
        hint = f"; see  {error.ctx.command_path} --help" if error.ctx is not None else ""
        sys.stderr.write(printable(f"micromegas: {line[0].lower()}{line[1:].rstrip('.')}{hint}\n"))
    return int(error.exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"micromegas {version('micromegas')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@command(app)
def serve(
    *,
    lake: LakeFlags,
    http_port: HttpPort = 9000,
    flight_port: FlightPort = 50051,
    api_port: ApiPort = None,
    allow_host: AllowHost = None,
    pg_port: AnyPgPort = None,
    host: Host = "127.0.0.1",
    tls: TlsFlags,
    engine: EngineFlags,
    workers: Workers = 0,
    retention: RetentionFlags,
    self_telemetry: SelfTelemetry = False,
) -> None:
    """Ingestion, queries by Flight SQL and HTTP, and daemon in one process; --pg-port adds the PostgreSQL gateway."""
    _run(
        ServiceFlags(
            lake=lake,
            host=host,
            http_port=http_port,
            flight_port=flight_port,
            api_port=api_port,
            allow_host=allow_host,
            pg_port=pg_port,
            tls=tls,
            engine=engine,
            retention=retention,
            self_telemetry=self_telemetry,
            workers=workers,
        )
    )


@command(app)
def ingest(*, lake: LakeFlags, http_port: HttpPort = 9000, host: Host = "127.0.0.1", tls: TlsFlags) -> None:
    """Ingestion only: takes telemetry over HTTP."""
    _run(ServiceFlags(lake=lake, host=host, http_port=http_port, tls=tls))


@command(app, "query-server")
def query_server(
    *,
    lake: LakeFlags,
    flight_port: FlightPort = 50051,
    api_port: ApiPort = None,
    allow_host: AllowHost = None,
    host: Host = "127.0.0.1",
    tls: TlsFlags,
    engine: EngineFlags,
    workers: AnyWorkers = None,
    self_telemetry: SelfTelemetry = False,
) -> None:
    """Queries only: answers them by Flight SQL and HTTP."""
    _run(
        ServiceFlags(
            lake=lake,
            host=host,
            flight_port=flight_port,
            api_port=api_port,
            allow_host=allow_host,
            tls=tls,
            engine=engine,
            self_telemetry=self_telemetry,
            workers=workers,
        )
    )


@command(app, "pg-gateway")
def pg_gateway(
    *,
    lake: LakeFlags,
    pg_port: PgPort = 5432,
    host: Host = "127.0.0.1",
    tls: TlsFlags,
    engine: EngineFlags,
    workers: GatewayWorkers = 1,
) -> None:
    """The PostgreSQL gateway only: answers psql, drivers, BI tools and other PostgreSQL servers."""
    _run(ServiceFlags(lake=lake, host=host, pg_port=pg_port, tls=tls, engine=engine, workers=workers))


@command(app)
def daemon(lake: LakeFlags, engine: EngineFlags, retention: RetentionFlags) -> None:
    """Daemon only: materializes partitions, deletes what is too old."""
    _run(ServiceFlags(lake=lake, engine=engine, retention=retention))


def _run(flags: ServiceFlags) -> None:
    from micromegas.cli.services import run_services

    run_services(flags, os.environ)


spool = typer.Typer(help="What recorded processes left that died.", no_args_is_help=True)
app.add_typer(spool, name="spool")
SpoolDir = Annotated[
    str | None, typer.Option("--dir", envvar="MICROMEGAS_SPOOL_DIR", help="The spool; else that of the user.")
]


@spool.command("list")
def spool_list(
    *, directory: SpoolDir = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """A line per process: its id, whether it is recording or left, the url of its server."""
    from micromegas.record.spool_command import list_spool

    list_spool(directory, as_json=as_json)


@spool.command("upload")
def spool_upload(
    *,
    directory: SpoolDir = None,
    url: Annotated[str | None, typer.Option("--url", help="Send everything there, not where it was meant for.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds per server.", min=0)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Tell in JSON what was sent.")] = False,
) -> None:
    """Sends what was left; exit code 1 when something remains."""
    from micromegas.record.spool_command import upload_spool

    upload_spool(directory, url, timeout, as_json=as_json)


add_questions(app)
add_administration(app)
