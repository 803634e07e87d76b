"""The commands and their flags. Bodies live in modules of their own, imported when a command runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from micromegas.cli.administration import add_administration
from micromegas.cli.errors import INTERRUPTED, READER_LEFT, CliError, missing_extra
from micromegas.cli.options import AnyApiKey, Format, Json, JsonLines, Profile, Server
from micromegas.cli.questions import add_questions
from micromegas.wire.printable import printable

app = typer.Typer(
    help="Every log, metric and span of every process, kept, and asked in SQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Lake = Annotated[Path | None, typer.Option("--lake", help="Folder of the lake's embedded database and objects.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="Port of ingestion; 0 takes a free one.", min=0, max=65535)]
FlightPort = Annotated[
    int, typer.Option("--flight-port", help="Port of Flight SQL; 0 takes a free one.", min=0, max=65535)
]
PgPort = Annotated[
    int | None,
    typer.Option("--pg-port", help="Port of the PostgreSQL gateway; 0 takes a free one.", min=0, max=65535),
]
TlsCertificate = Annotated[
    Path | None, typer.Option("--tls-certificate", help="PEM file: the PostgreSQL gateway offers TLS.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of the key of --tls-certificate.")]
ApiPort = Annotated[
    int | None,
    typer.Option(
        "--api-port",
        help="Port of queries over HTTP; 0 takes a free one. Default: 3000, or none where that is taken.",
        min=0,
        max=65535,
    ),
]
FlightTlsCertificate = Annotated[
    Path | None, typer.Option("--flight-tls-certificate", help="PEM file: Flight SQL speaks TLS, and nothing else.")
]
FlightTlsKey = Annotated[
    Path | None, typer.Option("--flight-tls-key", help="PEM file of the key of --flight-tls-certificate.")
]
SelfTelemetry = Annotated[
    bool,
    typer.Option(
        "--self-telemetry",
        envvar="MICROMEGAS_SELF_TELEMETRY",
        help="Record this server itself: its log, the audit of queries, and its measures. Into its own lake where it "
        "ingests, else to MICROMEGAS_TELEMETRY_URL.",
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="MICROMEGAS_SQL_CONNECTION_STRING",
        help="postgresql://… instead of the embedded database.",
        show_envvar=True,
    ),
]
ObjectStore = Annotated[
    str | None,
    typer.Option(
        "--object-store", envvar="MICROMEGAS_OBJECT_STORE_URI", help="s3://bucket/prefix or file:///folder for objects."
    ),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--memory-limit-mb",
        envvar="MICROMEGAS_DATAFUSION_MEMORY_BUDGET_MB",
        help="Memory of all running queries together.",
        min=1,
    ),
]
QueryMemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--query-memory-limit-mb",
        envvar="MICROMEGAS_QUERY_MEMORY_LIMIT_MB",
        help="Memory of one query at most; default: half of --memory-limit-mb. Beyond, it spills or fails.",
        min=1,
    ),
]
RetentionDays = Annotated[
    int | None,
    typer.Option(
        "--retention-days", envvar="MICROMEGAS_RETENTION_DAYS", help="Delete telemetry older than this.", min=1
    ),
]
RetentionPoliciesFile = Annotated[
    Path | None,
    typer.Option(
        "--retention-policies",
        envvar="MICROMEGAS_RETENTION_POLICIES",
        help="File of policies: what is kept for longer or shorter than that.",
    ),
]
Views = Annotated[
    Path | None,
    typer.Option("--views", envvar="MICROMEGAS_VIEWS", help="File of the site's own views; see docs/views.md."),
]


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
        # the reader of our output has left, as `head` does; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = READER_LEFT
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    sys.exit(code)


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


@app.command()
def serve(
    *,
    lake: Lake = None,
    http_port: HttpPort = 9000,
    flight_port: FlightPort = 50051,
    api_port: ApiPort = None,
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    retention_days: RetentionDays = None,
    retention_policies: RetentionPoliciesFile = None,
    views: Views = None,
    pg_port: PgPort = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    flight_tls_certificate: FlightTlsCertificate = None,
    flight_tls_key: FlightTlsKey = None,
    self_telemetry: SelfTelemetry = False,
) -> None:
    """Ingestion, queries by Flight SQL and HTTP, and daemon in one process; --pg-port adds the PostgreSQL gateway."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        host,
        database_url,
        object_store,
        http_port,
        flight_port,
        api_port,
        memory_limit_mb,
        query_memory_limit_mb,
        retention_days,
        daemon=True,
        retention_policies=retention_policies,
        views=views,
        pg_port=pg_port,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        flight_tls_certificate=flight_tls_certificate,
        flight_tls_key=flight_tls_key,
        self_telemetry=self_telemetry,
    )
    run_services(flags, os.environ)


@app.command()
def ingest(
    *,
    lake: Lake = None,
    http_port: HttpPort = 9000,
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
) -> None:
    """Ingestion only: takes telemetry over HTTP."""
    from micromegas.cli.services import ServiceFlags, run_services

    run_services(ServiceFlags(lake, host, database_url, object_store, http_port=http_port), os.environ)


@app.command("query-server")
def query_server(
    *,
    lake: Lake = None,
    flight_port: FlightPort = 50051,
    api_port: ApiPort = None,
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    views: Views = None,
    flight_tls_certificate: FlightTlsCertificate = None,
    flight_tls_key: FlightTlsKey = None,
    self_telemetry: SelfTelemetry = False,
) -> None:
    """Queries only: answers them by Flight SQL and HTTP."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        host,
        database_url,
        object_store,
        flight_port=flight_port,
        api_port=api_port,
        memory_limit_mb=memory_limit_mb,
        query_memory_limit_mb=query_memory_limit_mb,
        views=views,
        flight_tls_certificate=flight_tls_certificate,
        flight_tls_key=flight_tls_key,
        self_telemetry=self_telemetry,
    )
    run_services(flags, os.environ)


@app.command("pg-gateway")
def pg_gateway(
    *,
    lake: Lake = None,
    pg_port: Annotated[
        int, typer.Option("--pg-port", help="Port of the PostgreSQL protocol; 0 takes a free one.", min=0, max=65535)
    ] = 5432,
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    views: Views = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """The PostgreSQL gateway only: answers psql, drivers, BI tools and other PostgreSQL servers."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        host,
        database_url,
        object_store,
        memory_limit_mb=memory_limit_mb,
        query_memory_limit_mb=query_memory_limit_mb,
        views=views,
        pg_port=pg_port,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )
    run_services(flags, os.environ)


@app.command()
def daemon(
    *,
    lake: Lake = None,
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    retention_days: RetentionDays = None,
    retention_policies: RetentionPoliciesFile = None,
    views: Views = None,
) -> None:
    """Daemon only: materializes partitions, deletes what is too old."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        database_url=database_url,
        object_store=object_store,
        memory_limit_mb=memory_limit_mb,
        query_memory_limit_mb=query_memory_limit_mb,
        retention_days=retention_days,
        daemon=True,
        retention_policies=retention_policies,
        views=views,
    )
    run_services(flags, os.environ)


@app.command(rich_help_panel="Administration")
def retention(
    *,
    lake: Lake = None,
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    retention_days: RetentionDays = None,
    retention_policies: RetentionPoliciesFile = None,
    views: Views = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it now, as daemons do by themselves.")] = False,
    format: Format = None,
    as_json: Json = False,
) -> None:
    """Shows what policies would delete now. Opens the lake itself, beside its servers."""
    from micromegas.cli.retention import run_retention
    from micromegas.cli.rows import chosen_format
    from micromegas.cli.settings import ServiceFlags

    flags = ServiceFlags(
        lake,
        database_url=database_url,
        object_store=object_store,
        retention_days=retention_days,
        retention_policies=retention_policies,
        views=views,
    )
    run_retention(flags, os.environ, chosen_format(format, as_json), delete=delete)


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


RangeBegin = Annotated[
    str, typer.Option("--begin", help="Insert time from which on: 1h, 7d (before now), or 2026-01-31T12:00Z.")
]
RangeEnd = Annotated[str, typer.Option("--end", help="Insert time up to which, likewise.")]
ViewSet = Annotated[str, typer.Argument(help="Such as log_entries.")]


@app.command(rich_help_panel="Administration")
def materialize(
    *,
    view_set: ViewSet,
    begin: RangeBegin,
    end: RangeEnd,
    delta: Annotated[int, typer.Option("--delta", help="Seconds of a partition.", min=1)] = 3600,
    again: Annotated[bool, typer.Option("--again", help="Make anew what is there already, too.")] = False,
    as_json: JsonLines = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Makes the partitions of a view, as the daemon would (administrators only)."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.orders import run_materialize

    run_materialize(Connection(server, api_key, profile), view_set, begin, end, delta, again=again, as_json=as_json)


@app.command(rich_help_panel="Administration")
def retire(
    *,
    view_set: ViewSet,
    instance: Annotated[str, typer.Argument(help="global, or the id of a process or stream.")],
    begin: RangeBegin,
    end: RangeEnd,
    as_json: JsonLines = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Retires the partitions of a view that lie within a range (administrators only)."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.orders import run_retire

    run_retire(Connection(server, api_key, profile), view_set, instance, begin, end, as_json=as_json)


add_questions(app)
add_administration(app)
