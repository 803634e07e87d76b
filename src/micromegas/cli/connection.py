"""Where commands ask: the server of the flags, and what it or the way to it says against a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micromegas.cli.errors import KEY_REFUSED, NO_SERVER, CliError, UsageError
from micromegas.cli.options import Connection
from micromegas.client import (
    AddressInvalid,
    AuthProvider,
    Client,
    ClientError,
    ServerUnreachable,
    SignInRefused,
    StaticTokenAuthProvider,
)
from micromegas.client.connecting import provider_of
from micromegas.client.profiles import Profile, load_profile


@contextmanager
def connected(connection: Connection) -> Iterator[Client]:
    """A client, closed at the end; raises `CliError` with the next step for errors of the client within."""
    with told_in_one_line():
        address, provider = signed_in(connection)
        with Client(address, auth_provider=provider, entrypoint="cli") as client:
            yield client


def signed_in(connection: Connection) -> tuple[str, AuthProvider | None]:
    """The address of the server, and how to sign in there; raises `ProfileError` and `ClientError`."""
    profile = _profile(connection)
    key = None if connection.api_key is None else StaticTokenAuthProvider(connection.api_key)
    return profile.uri, key or provider_of(profile)


def _profile(connection: Connection) -> Profile:
    """What the flags leave open. An address by itself has no profile where the environment isn't to be used."""
    if connection.server is not None and connection.profile is None and not connection.uses_environment:
        return Profile(None, connection.server)
    environment = os.environ if connection.uses_environment else {}
    return load_profile(connection.profile, environment, Path.home(), server=connection.server)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raises `CliError` for errors of the client within."""
    try:
        yield
    except AddressInvalid as error:
        raise UsageError(str(error)) from None
    except ServerUnreachable as error:
        raise CliError(f"{error}; is it running? start one with  micromegas serve --lake DIR", NO_SERVER) from None
    except SignInRefused as error:
        raise CliError(f"{error}; set --api-key or MICROMEGAS_API_KEY, or name its --profile", KEY_REFUSED) from None
    except (ClientError, ValueError) as error:
        raise CliError(" ".join(str(error).split())) from None
