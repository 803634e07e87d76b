"""`micromegas login` and `micromegas logout`: a person's tokens, kept for the commands that follow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from micromegas.cli.connection import told_in_one_line
from micromegas.cli.errors import CliError
from micromegas.client.person import OidcAuthProvider
from micromegas.client.profiles import load_profile
from micromegas.client.token_file import token_file_of


def run_login(name: str | None, *, device: bool) -> None:
    """Tells who to see in the browser; raises `CliError` for whatever goes wrong."""
    home = Path.home()
    with told_in_one_line():
        profile = load_profile(name, os.environ, home)
        if not profile.issuer or not profile.client_id:
            place = f"profile {profile.name}" if profile.name else "the environment and ~/.micromegas/config.json"
            raise CliError(f"{place}: no issuer and client_id in it; set MICROMEGAS_OIDC_ISSUER and _CLIENT_ID")
        OidcAuthProvider.login(
            profile.issuer,
            profile.client_id,
            profile.client_secret,
            str(token_file_of(profile.name, home)),
            audience=profile.audience,
            scope=profile.scope,
            device=device,
        )
    sys.stderr.write("micromegas: signed in\n")


def run_logout(name: str | None) -> None:
    """Removes the files of tokens; raises `CliError` where one can't be removed."""
    files = [token_file_of(None, Path.home())]
    if name is None:
        files += sorted(files[0].parent.glob("tokens-*.json"))
    else:
        files = [token_file_of(name, Path.home())]
    found = [file for file in files if file.exists()]
    try:
        for file in found:
            file.unlink()
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from None
    sys.stderr.write(f"micromegas: {'signed out' if found else 'nobody was signed in'}\n")
