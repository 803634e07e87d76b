"""Flags and environment into settings objects. The only place of the product, beside the recorder, that knows names of
variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas.cli.errors import CliError
from micromegas.config import (
    DaemonSettings,
    FlightSettings,
    IngestSettings,
    LakeSettings,
    QuerySettings,
    parse_admins,
    parse_api_keys,
)

if TYPE_CHECKING:
    from micromegas.serve.node import NodeSettings

MIB = 1024 * 1024
_STORE_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ENDPOINT_URL": "aws_endpoint_url",
}


@dataclass(frozen=True, slots=True)
class ServiceFlags:
    """The flags of a service; a port that is None leaves its role out. Flags were already completed from their
    variables."""

    lake: Path | None
    host: str = "127.0.0.1"
    database_url: str | None = None
    object_store: str | None = None
    http_port: int | None = None
    flight_port: int | None = None
    memory_limit_mb: int | None = None
    retention_days: int | None = None
    daemon: bool = False


def node_settings(flags: ServiceFlags, environment: Mapping[str, str]) -> NodeSettings:
    """Settings of the roles that the flags ask for; `CliError` for values that can't be."""
    from micromegas.serve.node import NodeSettings

    if flags.lake is None and (flags.database_url is None or flags.object_store is None):
        raise CliError("where is the lake? add --lake DIR, or both --database-url and --object-store")
    try:
        keys = parse_api_keys(environment["MICROMEGAS_API_KEYS"]) if environment.get("MICROMEGAS_API_KEYS") else ()
        admins = parse_admins(environment["MICROMEGAS_ADMINS"]) if environment.get("MICROMEGAS_ADMINS") else frozenset()
        options = {name: environment[key] for key, name in _STORE_VARIABLES.items() if environment.get(key)}
        lake = LakeSettings(
            lake_dir=flags.lake,
            database_url=flags.database_url,
            object_store=flags.object_store,
            object_store_options=options,
        )
        query = (
            QuerySettings()
            if flags.memory_limit_mb is None
            else QuerySettings(memory_bytes=flags.memory_limit_mb * MIB)
        )
        ingest = None
        if flags.http_port is not None:
            ingest = IngestSettings(host=flags.host, port=flags.http_port, api_keys=keys)
        flight = None
        if flags.flight_port is not None:
            flight = FlightSettings(host=flags.host, port=flags.flight_port, api_keys=keys, admins=admins)
        daemon = None
        if flags.daemon:
            daemon = (
                DaemonSettings()
                if flags.retention_days is None
                else DaemonSettings(retention_days=flags.retention_days)
            )
    except ValueError as error:
        raise CliError(str(error)) from None
    return NodeSettings(lake=lake, query=query, ingest=ingest, flight=flight, daemon=daemon)
