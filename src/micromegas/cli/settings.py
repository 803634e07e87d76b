"""Flags and environment into settings objects. The only place of the product, beside the recorder, that knows names of
variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from micromegas.cli.errors import CliError, UsageError
from micromegas.cli.keys import read_keys
from micromegas.cli.service_options import EngineFlags, LakeFlags, RetentionFlags, ServiceFlags
from micromegas.config import (
    ApiKey,
    DaemonSettings,
    FlightSettings,
    HttpSettings,
    IngestSettings,
    LakeSettings,
    OidcSettings,
    PostgresSettings,
    QuerySettings,
    parse_admins,
    parse_api_keys,
    parse_oidc_settings,
    parse_retention_policies,
)

if TYPE_CHECKING:
    from micromegas.serve.node_settings import NodeSettings

MIB = 1024 * 1024
_WORKER_BYTES = 512 * MIB
_STORE_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ENDPOINT_URL": "aws_endpoint_url",
}


class _Answering(TypedDict):
    """What all who answer queries have in common."""

    host: str
    api_keys: tuple[ApiKey, ...]
    admins: frozenset[str]
    oidc: OidcSettings | None
    tls_certificate: Path | None
    tls_key: Path | None


def node_settings(flags: ServiceFlags, environment: Mapping[str, str]) -> NodeSettings:
    """Settings of the roles that the flags ask for; `CliError` for values that can't be."""
    from micromegas.serve.node_settings import NodeSettings

    try:
        keys = _api_keys(environment)
        admins = parse_admins(environment["MICROMEGAS_ADMINS"]) if environment.get("MICROMEGAS_ADMINS") else frozenset()
        oidc = (
            parse_oidc_settings(environment["MICROMEGAS_OIDC_CONFIG"])
            if environment.get("MICROMEGAS_OIDC_CONFIG")
            else None
        )
        answering: _Answering = {
            "host": flags.host,
            "api_keys": keys,
            "admins": admins,
            "oidc": oidc,
            "tls_certificate": flags.tls.tls_certificate,
            "tls_key": flags.tls.tls_key,
        }
        names = frozenset(flags.allow_host or ())
        ingest = flight = http = postgres = daemon = None
        if flags.http_port is not None:
            ingest = IngestSettings(
                host=flags.host,
                port=flags.http_port,
                api_keys=keys,
                oidc=oidc,
                tls_certificate=flags.tls.tls_certificate,
                tls_key=flags.tls.tls_key,
            )
        if flags.flight_port is not None:
            flight = FlightSettings(port=flags.flight_port, **answering)
        if flags.api_port is not None:
            http = HttpSettings(port=flags.api_port, host_names=names, **answering)
        elif flags.flight_port is not None:
            http = HttpSettings(optional=True, host_names=names, **answering)
        if flags.pg_port is not None:
            postgres = PostgresSettings(port=flags.pg_port, **answering)
        if flags.retention is not None:
            daemon = daemon_settings(flags.retention)
        lake, query = lake_settings(flags.lake, environment), query_settings(flags.engine)
    except ValueError as error:
        raise CliError(str(error)) from None
    return NodeSettings(
        lake=lake,
        query=query,
        ingest=ingest,
        flight=flight,
        http=http,
        postgres=postgres,
        daemon=daemon,
        workers=_advised_workers(query) if flags.workers is None else flags.workers,
        self_telemetry=flags.self_telemetry,
    )


def _advised_workers(query: QuerySettings) -> int:
    """One for each core, as far as each gets enough memory for its queries."""
    return max(1, min(os.cpu_count() or 1, query.memory_bytes // _WORKER_BYTES))


def _api_keys(environment: Mapping[str, str]) -> tuple[ApiKey, ...]:
    """Those of the variable, or of the file that the other variable names."""
    text, file = environment.get("MICROMEGAS_API_KEYS"), environment.get("MICROMEGAS_API_KEYS_FILE")
    if text and file:
        raise CliError("MICROMEGAS_API_KEYS and MICROMEGAS_API_KEYS_FILE: leave one out")
    if not text and not file:
        return ()
    keys = read_keys(Path(file)) if file else parse_api_keys(text or "")
    if not keys:
        raise CliError(
            "the list of API keys is empty: everybody would be let in; add one with  micromegas keys add, or unset the "
            "variable"
        )
    return keys


def query_settings(flags: EngineFlags) -> QuerySettings:
    """What queries may take, and the file of views, which is looked at; raises `CliError` or `ValueError`."""
    if flags.views is not None:
        try:
            flags.views.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"the file of views can't be read: {error}; check --views") from None
    query = QuerySettings(views_file=flags.views)
    if flags.memory_limit_mb is not None:
        query = replace(query, memory_bytes=flags.memory_limit_mb * MIB)
    if flags.query_memory_limit_mb is not None:
        query = replace(query, query_memory_bytes=flags.query_memory_limit_mb * MIB)
    if flags.query_timeout_s is not None:
        query = replace(query, statement_timeout_s=flags.query_timeout_s)
    return query


def lake_settings(flags: LakeFlags, environment: Mapping[str, str]) -> LakeSettings:
    """Where the lake is; `CliError` where the flags don't tell, `ValueError` for values that can't be."""
    if flags.lake is None and (flags.database_url is None or flags.object_store is None):
        raise UsageError("where is the lake? add --lake DIR, or both --database-url and --object-store")
    options = {name: environment[key] for key, name in _STORE_VARIABLES.items() if environment.get(key)}
    return LakeSettings(
        lake_dir=flags.lake,
        database_url=flags.database_url,
        object_store=flags.object_store,
        object_store_options=options,
    )


def daemon_settings(flags: RetentionFlags) -> DaemonSettings:
    """Settings of the daemon; `CliError` for a file that can't be read, `ValueError` for values that can't be."""
    settings = DaemonSettings()
    if flags.retention_days is not None:
        settings = replace(settings, retention_days=flags.retention_days)
    if flags.retention_policies is not None:
        try:
            text = flags.retention_policies.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text in UTF-8"
            raise CliError(f"--retention-policies {flags.retention_policies}: {reason}") from None
        settings = replace(settings, policies=parse_retention_policies(text))
    return settings
