"""The commands and their flags. Bodies live in modules of their own, imported when a command runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from micromegas.cli.errors import CliError, missing_extra

app = typer.Typer(
    help="Every log, metric and span of every process, kept, and asked in SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Lake = Annotated[Path | None, typer.Option("--lake", help="Folder of the lake's embedded database and objects.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="Port of ingestion; 0 takes a free one.", min=0, max=65535)]
FlightPort = Annotated[
    int, typer.Option("--flight-port", help="Port of Flight SQL; 0 takes a free one.", min=0, max=65535)
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
Format = Annotated[str | None, typer.Option("--format", help="table, json, csv, arrow or parquet; default: table.")]
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


def run() -> None:
    """Runs the command line; prints a `CliError` as one line."""
    try:
        app()
    except CliError as error:
        sys.exit(f"micromegas: {error}")
    except ModuleNotFoundError as error:
        sys.exit(missing_extra(error))
    except BrokenPipeError:
        # the reader of our output has left, as `head` does; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


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
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    retention_days: RetentionDays = None,
    retention_policies: RetentionPoliciesFile = None,
    views: Views = None,
) -> None:
    """Ingestion, Flight SQL, and daemon in one process."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        host,
        database_url,
        object_store,
        http_port,
        flight_port,
        memory_limit_mb,
        query_memory_limit_mb,
        retention_days,
        daemon=True,
        retention_policies=retention_policies,
        views=views,
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
    host: Host = "127.0.0.1",
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    memory_limit_mb: MemoryLimit = None,
    query_memory_limit_mb: QueryMemoryLimit = None,
    views: Views = None,
) -> None:
    """Flight SQL only: answers queries."""
    from micromegas.cli.services import ServiceFlags, run_services

    flags = ServiceFlags(
        lake,
        host,
        database_url,
        object_store,
        flight_port=flight_port,
        memory_limit_mb=memory_limit_mb,
        query_memory_limit_mb=query_memory_limit_mb,
        views=views,
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


@app.command()
def retention(
    *,
    lake: Lake = None,
    database_url: DatabaseUrl = None,
    object_store: ObjectStore = None,
    retention_days: RetentionDays = None,
    retention_policies: RetentionPoliciesFile = None,
    views: Views = None,
    format: Format = None,
) -> None:
    """Shows what policies would delete now, and deletes nothing. Opens the lake itself, beside its servers."""
    from micromegas.cli.retention import run_retention
    from micromegas.cli.settings import ServiceFlags

    flags = ServiceFlags(
        lake,
        database_url=database_url,
        object_store=object_store,
        retention_days=retention_days,
        retention_policies=retention_policies,
        views=views,
    )
    run_retention(flags, os.environ, format or "table")


spool = typer.Typer(help="What recorded processes left that died.", no_args_is_help=True)
app.add_typer(spool, name="spool")
SpoolDir = Annotated[
    str | None, typer.Option("--dir", envvar="MICROMEGAS_SPOOL_DIR", help="The spool; else that of the user.")
]


@spool.command("list")
def spool_list(*, directory: SpoolDir = None) -> None:
    """A line per process: its id, whether it is recording or left, the url of its server."""
    from micromegas.record.spool_command import list_spool

    list_spool(directory)


@spool.command("upload")
def spool_upload(
    *,
    directory: SpoolDir = None,
    url: Annotated[str | None, typer.Option("--url", help="Send everything there, not where it was meant for.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds per server.", min=0)] = 60.0,
) -> None:
    """Sends what was left; exit code 1 when something remains."""
    from micromegas.record.spool_command import upload_spool

    upload_spool(directory, url, timeout)


Server = Annotated[str, typer.Option("--server", envvar="MICROMEGAS_ANALYTICS_URI", help="Address of the server.")]
AnyApiKey = Annotated[str | None, typer.Option("--api-key", envvar="MICROMEGAS_API_KEY", help="Key to sign in.")]
RangeBegin = Annotated[
    str, typer.Option("--begin", help="Insert time from which on: 1h, 7d (before now), or 2026-01-31T12:00Z.")
]
RangeEnd = Annotated[str, typer.Option("--end", help="Insert time up to which, likewise.")]
ViewSet = Annotated[str, typer.Argument(help="Such as log_entries.")]


@app.command()
def materialize(
    *,
    view_set: ViewSet,
    begin: RangeBegin,
    end: RangeEnd,
    delta: Annotated[int, typer.Option("--delta", help="Seconds of a partition.", min=1)] = 3600,
    again: Annotated[bool, typer.Option("--again", help="Make anew what is there already, too.")] = False,
    server: Server = "grpc://localhost:50051",
    api_key: AnyApiKey = None,
) -> None:
    """Makes the partitions of a view, as the daemon would (administrators only)."""
    from micromegas.cli.orders import run_materialize

    run_materialize(view_set, begin, end, delta, again=again, server=server, api_key=api_key)


@app.command()
def retire(
    *,
    view_set: ViewSet,
    instance: Annotated[str, typer.Argument(help="global, or the id of a process or stream.")],
    begin: RangeBegin,
    end: RangeEnd,
    server: Server = "grpc://localhost:50051",
    api_key: AnyApiKey = None,
) -> None:
    """Retires the partitions of a view that lie within a range (administrators only)."""
    from micromegas.cli.orders import run_retire

    run_retire(view_set, instance, begin, end, server=server, api_key=api_key)


@app.command()
def trace(
    *,
    process: Annotated[str, typer.Argument(help="Id of the process.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; default: PROCESS.perfetto-trace.")
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--begin", help="From this time on: 1h, 7d (before now), or 2026-01-31T12:00Z.")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", help="Up to this time, likewise.")] = None,
    types: Annotated[
        str, typer.Option("--types", help="thread, async, both, measures, logs or all; several with commas.")
    ] = "all",
    server: Server = "grpc://localhost:50051",
    api_key: AnyApiKey = None,
) -> None:
    """Writes what a process did as a file for ui.perfetto.dev; without times, all of it."""
    from micromegas.cli.trace import TraceFlags, run_trace

    run_trace(TraceFlags(process, output, begin, end, types, server, api_key))


@app.command()
def query(
    *,
    sql: Annotated[str, typer.Argument(help="The statement; - reads it from standard input.")],
    begin: Annotated[
        str | None, typer.Option("--begin", help="Rows from this time on: 1h, 7d (before now), or 2026-01-31T12:00Z.")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", help="Rows up to this time, likewise.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most this many rows.", min=0)] = None,
    format: Format = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    server: Server = "grpc://localhost:50051",
    api_key: AnyApiKey = None,
) -> None:
    """Asks a server in SQL."""
    from micromegas.cli.query import QueryFlags, run_query

    run_query(QueryFlags(sql, begin, end, limit, format, output, server, api_key))
