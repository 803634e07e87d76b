"""Options of services, in the groups in which they take them. Flags are completed from their variables by typer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="Port of ingestion; 0 takes a free one.", min=0, max=65535)]
FlightPort = Annotated[
    int, typer.Option("--flight-port", help="Port of Flight SQL; 0 takes a free one.", min=0, max=65535)
]
ApiPort = Annotated[
    int | None,
    typer.Option(
        "--api-port",
        help="Port of queries over HTTP; 0 takes a free one. Default: 3000, or none where that is taken.",
        min=0,
        max=65535,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A name by which callers may ask over HTTP, where there are no API keys: a name that isn't known could be "
        "that of a hostile page. May be given several times; addresses, localhost and names without a dot are known.",
    ),
]
_PG_PORT_HELP = "Port of the PostgreSQL gateway; 0 takes a free one."
PgPort = Annotated[int, typer.Option("--pg-port", help=_PG_PORT_HELP, min=0, max=65535)]
AnyPgPort = Annotated[int | None, typer.Option("--pg-port", help=_PG_PORT_HELP, min=0, max=65535)]
_WORKERS_HELP = "Processes that answer queries, which part the memory among them; 0: this one does all."
Workers = Annotated[int, typer.Option("--workers", envvar="MICROMEGAS_WORKERS", help=_WORKERS_HELP, min=0)]
GatewayWorkers = Annotated[
    int,
    typer.Option(
        "--workers",
        envvar="MICROMEGAS_GATEWAY_WORKERS",
        help="1: sessions are in a process of its own, which is replaced where a statement can't be ended; 0: in this.",
        min=0,
        max=1,
    ),
]
AnyWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        envvar="MICROMEGAS_WORKERS",
        help=f"{_WORKERS_HELP} Default: one for each core, as far as each gets 512 MB.",
        min=0,
    ),
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


@dataclass(frozen=True, slots=True)
class LakeFlags:
    """Where the lake is."""

    lake: Annotated[Path | None, typer.Option("--lake", help="Folder of the lake's embedded database and objects.")] = (
        None
    )
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            envvar="MICROMEGAS_SQL_CONNECTION_STRING",
            help="postgresql://… instead of the embedded database.",
            show_envvar=True,
        ),
    ] = None
    object_store: Annotated[
        str | None,
        typer.Option(
            "--object-store",
            envvar="MICROMEGAS_OBJECT_STORE_URI",
            help="s3://bucket/prefix or file:///folder for objects.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """What queries may take, and the site's own views."""

    memory_limit_mb: Annotated[
        int | None,
        typer.Option(
            "--memory-limit-mb",
            envvar="MICROMEGAS_DATAFUSION_MEMORY_BUDGET_MB",
            help="Memory of all running queries together.",
            min=1,
        ),
    ] = None
    query_memory_limit_mb: Annotated[
        int | None,
        typer.Option(
            "--query-memory-limit-mb",
            envvar="MICROMEGAS_QUERY_MEMORY_LIMIT_MB",
            help="Memory of one query at most; default: half of --memory-limit-mb. Beyond, it spills or fails.",
            min=1,
        ),
    ] = None
    query_timeout_s: Annotated[
        float | None,
        typer.Option(
            "--query-timeout-s",
            envvar="MICROMEGAS_QUERY_TIMEOUT_S",
            help="Seconds after which a query is ended. Default: 300.",
        ),
    ] = None
    views: Annotated[
        Path | None,
        typer.Option("--views", envvar="MICROMEGAS_VIEWS", help="File of the site's own views; see docs/views.md."),
    ] = None


@dataclass(frozen=True, slots=True)
class RetentionFlags:
    """How long what is kept."""

    retention_days: Annotated[
        int | None,
        typer.Option(
            "--retention-days", envvar="MICROMEGAS_RETENTION_DAYS", help="Delete telemetry older than this.", min=1
        ),
    ] = None
    retention_policies: Annotated[
        Path | None,
        typer.Option(
            "--retention-policies",
            envvar="MICROMEGAS_RETENTION_POLICIES",
            help="File of policies: what is kept for longer or shorter than that.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class TlsFlags:
    """The certificate of a server."""

    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            "--tls-certificate",
            envvar="MICROMEGAS_TLS_CERTIFICATE",
            help="PEM file: all ports speak TLS only, but for the PostgreSQL gateway, which offers it.",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", envvar="MICROMEGAS_TLS_KEY", help="PEM file of the key of --tls-certificate."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFlags:
    """The roles of a process. A port that is None leaves its role out, but for `api_port`: who answers Flight SQL
    answers HTTP, too, where the usual port is free. Without `retention` there is no daemon. `workers`
    None: as many as cores and memory give."""

    lake: LakeFlags
    host: str = "127.0.0.1"
    http_port: int | None = None
    flight_port: int | None = None
    api_port: int | None = None
    allow_host: list[str] | None = None
    pg_port: int | None = None
    engine: EngineFlags = EngineFlags()
    tls: TlsFlags = TlsFlags()
    retention: RetentionFlags | None = None
    self_telemetry: bool = False
    workers: int | None = 0
