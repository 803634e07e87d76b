"""Settings of the services as typed, frozen objects.

Values come from the command line and the services' start; nothing in here (nor in whoever receives a settings object)
may read the environment, and no secret may appear in a `repr`.
"""

from micromegas.config.daemon import DaemonSettings
from micromegas.config.flight import FlightSettings
from micromegas.config.http import HttpSettings
from micromegas.config.ingest import ApiKey, IngestSettings, parse_admins, parse_api_keys
from micromegas.config.lake import LakeSettings
from micromegas.config.oidc import OidcIssuer, OidcSettings, parse_oidc_settings
from micromegas.config.postgres import PostgresSettings
from micromegas.config.query import QuerySettings
from micromegas.config.retention import InstancePolicy, RetentionPolicies, StreamPolicy, parse_retention_policies

__all__ = [
    "ApiKey",
    "DaemonSettings",
    "FlightSettings",
    "HttpSettings",
    "IngestSettings",
    "InstancePolicy",
    "LakeSettings",
    "OidcIssuer",
    "OidcSettings",
    "PostgresSettings",
    "QuerySettings",
    "RetentionPolicies",
    "StreamPolicy",
    "parse_admins",
    "parse_api_keys",
    "parse_oidc_settings",
    "parse_retention_policies",
]
