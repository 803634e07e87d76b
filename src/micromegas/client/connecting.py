"""`micromegas.connect()` and its kin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from micromegas.client.async_client import AsyncFlightSQLClient
from micromegas.client.client import DEFAULT_ADDRESS, Client, ConnectOptions
from micromegas.client.credentials import AuthProvider
from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.oidc import OidcClientCredentialsProvider
from micromegas.client.person import load_or_login
from micromegas.client.profiles import Profile, load_profile
from micromegas.client.token_file import token_file_of


def connect(
    uri: str | None = None,
    preserve_dictionary: bool = False,
    *,
    client_entrypoint: str | None = None,
    **options: Unpack[ConnectOptions],
) -> FlightSQLClient:
    """A client of the server at `uri`, by default grpc://localhost:50051; `options` are `api_key`, `auth_provider`,
    `retries` and `ca_file`, as of `Client`.

    Reads neither a file nor the environment for where and who: that is `connect_with_profile`.
    """
    client = Client(
        uri or DEFAULT_ADDRESS, preserve_dictionary=preserve_dictionary, entrypoint=client_entrypoint, **options
    )
    return FlightSQLClient(client=client)


def connect_async(
    uri: str | None = None,
    preserve_dictionary: bool = False,
    *,
    client_entrypoint: str | None = None,
    threads: int = 32,
    **options: Unpack[ConnectOptions],
) -> AsyncFlightSQLClient:
    """As `connect`, for coroutines: `async with micromegas.connect_async(…) as client: await client.query(…)`. As many
    calls as there are `threads` run at once."""
    client = connect(uri, preserve_dictionary, client_entrypoint=client_entrypoint, **options)
    return AsyncFlightSQLClient(client.client, threads=threads)


def connect_with_profile(
    profile: str | None = None, client_entrypoint: str | None = None, preserve_dictionary: bool = False
) -> FlightSQLClient:
    """A client of the server that a profile of `~/.micromegas/config.json` and the environment name. `ProfileError`
    for a profile that isn't there, or that says what can't be."""
    chosen = load_profile(profile, os.environ, Path.home())
    provider = provider_of(chosen)
    return connect(chosen.uri, preserve_dictionary, auth_provider=provider, client_entrypoint=client_entrypoint)


def connect_as_person(  # noqa: PLR0917 # theirs
    uri: str,
    issuer: str,
    client_id: str,
    client_secret: str | None = None,
    token_file: str | None = None,
    preserve_dictionary: bool = False,
    audience: str | None = None,
    scope: str | None = None,
    client_entrypoint: str | None = None,
) -> FlightSQLClient:
    """A client of the server at `uri`, signed in as a person: in a browser the first time, afterwards by the tokens in
    `token_file`, by default `~/.micromegas/tokens.json`. Raises `SignInRefused`."""
    person = load_or_login(issuer, client_id, client_secret, token_file, audience, scope)
    return connect(uri, preserve_dictionary, auth_provider=person, client_entrypoint=client_entrypoint)


def provider_of(profile: Profile) -> AuthProvider | None:
    """How a profile signs in, None where it doesn't: with a key, as a service that has a secret, or as a person, who is
    asked to sign in unless they did. Raises `ProfileError` and `SignInRefused`."""
    provider = profile.static_token()
    if provider is not None or not profile.issuer or not profile.client_id:
        return provider
    if profile.client_secret is None:
        file = token_file_of(profile.name, Path.home())
        return load_or_login(
            profile.issuer, profile.client_id, None, str(file), audience=profile.audience, scope=profile.scope
        )
    return OidcClientCredentialsProvider(profile.issuer, profile.client_id, profile.client_secret, profile.audience)
