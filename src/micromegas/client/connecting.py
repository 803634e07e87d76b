"""`micromegas.connect()` and its kin."""

from __future__ import annotations

import os
from pathlib import Path

from micromegas.client.async_client import AsyncFlightSQLClient
from micromegas.client.client import DEFAULT_ADDRESS, Client
from micromegas.client.credentials import AuthProvider
from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.oidc import OidcClientCredentialsProvider
from micromegas.client.profiles import Profile, ProfileError, load_profile


def connect(
    uri: str | None = None,
    preserve_dictionary: bool = False,
    *,
    api_key: str | None = None,
    auth_provider: AuthProvider | None = None,
    client_entrypoint: str | None = None,
    retries: int = 3,
    ca_file: str | Path | None = None,
) -> FlightSQLClient:
    """A client of the server at `uri`, by default grpc://localhost:50051; the other arguments as of `Client`.

    Reads neither a file nor the environment for where and who: that is `connect_with_profile`.
    """
    client = Client(
        uri or DEFAULT_ADDRESS,
        api_key=api_key,
        auth_provider=auth_provider,
        preserve_dictionary=preserve_dictionary,
        entrypoint=client_entrypoint,
        retries=retries,
        ca_file=ca_file,
    )
    return FlightSQLClient(client=client)


def connect_async(
    uri: str | None = None,
    preserve_dictionary: bool = False,
    *,
    api_key: str | None = None,
    auth_provider: AuthProvider | None = None,
    client_entrypoint: str | None = None,
    retries: int = 3,
    ca_file: str | Path | None = None,
    threads: int = 32,
) -> AsyncFlightSQLClient:
    """As `connect`, for coroutines: `async with micromegas.connect_async(…) as client: await client.query(…)`. As many
    calls as there are `threads` run at once."""
    client = connect(
        uri,
        preserve_dictionary,
        api_key=api_key,
        auth_provider=auth_provider,
        client_entrypoint=client_entrypoint,
        retries=retries,
        ca_file=ca_file,
    )
    return AsyncFlightSQLClient(client.client, threads=threads)


def connect_with_profile(
    profile: str | None = None, client_entrypoint: str | None = None, preserve_dictionary: bool = False
) -> FlightSQLClient:
    """A client of the server that a profile of `~/.micromegas/config.json` and the environment name. `ProfileError`
    for a profile that isn't there, or that says what can't be."""
    chosen = load_profile(profile, os.environ, Path.home())
    provider = provider_of(chosen)
    return connect(chosen.uri, preserve_dictionary, auth_provider=provider, client_entrypoint=client_entrypoint)


def provider_of(profile: Profile) -> AuthProvider | None:
    """How a profile signs in, None where it doesn't. `ProfileError` for one that can't."""
    provider = profile.static_token()
    if provider is not None or not profile.issuer or not profile.client_id:
        return provider
    if profile.client_secret is None:
        raise ProfileError(
            f"profile {profile.name or 'default'}: signing in as a person is not offered; use api_key_file, or set "
            "MICROMEGAS_OIDC_CLIENT_SECRET"
        )
    return OidcClientCredentialsProvider(profile.issuer, profile.client_id, profile.client_secret, profile.audience)
