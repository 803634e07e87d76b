"""Where commands ask: the server of the flags, and what it or the way to it says against a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from micromegas.cli.errors import KEY_REFUSED, NO_SERVER, CliError
from micromegas.client import Client, ClientError, ServerUnreachable, SignInRefused, StaticTokenAuthProvider
from micromegas.client.connecting import provider_of
from micromegas.client.profiles import Profile, load_profile


@dataclass(frozen=True, slots=True)
class Connection:
    """The flags as typed. What they don't say, the environment does (unless it isn't to be used), or the
    profile."""

    server: str | None
    api_key: str | None = field(repr=False)
    profile: str | None
    uses_environment: bool = True


@contextmanager
def connected(connection: Connection) -> Iterator[Client]:
    """A client, closed at the end; raises `CliError` with the next step for errors of the client within."""
    with told_in_one_line():
        profile = _profile(connection)
        key = None if connection.api_key is None else StaticTokenAuthProvider(connection.api_key)
        provider = key or provider_of(profile)
        with Client(connection.server or profile.uri, auth_provider=provider, entrypoint="cli") as client:
            yield client


def _profile(connection: Connection) -> Profile:
    """What the flags leave open. An address by itself has no profile: the key of another server is not for it."""
    if connection.server is not None and connection.profile is None and not connection.uses_environment:
        return Profile(None, connection.server)
    return load_profile(connection.profile, os.environ if connection.uses_environment else {}, Path.home())


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raises `CliError` for errors of the client within."""
    try:
        yield
    except ServerUnreachable as error:
        raise CliError(f"{error}; is it running? start one with  micromegas serve --lake DIR", NO_SERVER) from None
    except SignInRefused as error:
        raise CliError(f"{error}; set --api-key or MICROMEGAS_API_KEY", KEY_REFUSED) from None
    except (ClientError, ValueError) as error:
        raise CliError(" ".join(str(error).split())) from None
