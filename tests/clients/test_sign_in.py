"""Signing in as a person, from the browser to the rows: the published client and ours, at a server that asks for it.

The provider is a server of the tests; the browser is a program that follows its redirects.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.conftest import address_of
from clients.published import PublishedPackage
from e2e.serving import Service, serving
from kept import kept
from servers.identity_provider import IdentityProviderServer

import micromegas
from micromegas.client import SignInRefused
from micromegas.config import LakeSettings

BROWSER = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=30).read()"
SIGNED_IN = """
from micromegas import oidc_connection
client = oidc_connection.connect({address!r}, {issuer!r}, {client_id!r}, token_file={file!r})
print(client.query("SELECT 1 AS one")["one"][0])
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, module_provider: IdentityProviderServer) -> Iterator[Service]:
    """Lets in the users of the provider, and one key."""
    lake = LakeSettings(lake_dir=tmp_path_factory.mktemp("persons") / "lake")
    issuers = {"issuers": [{"issuer": module_provider.issuer, "audience": module_provider.client_id}]}
    environment = {
        "MICROMEGAS_OIDC_CONFIG": json.dumps(issuers),
        "MICROMEGAS_API_KEYS": '[{"name": "robot", "key": "k-1"}]',
    }
    with serving(lake, "serve", environment=environment, api_key="k-1") as running:
        yield running


@pytest.fixture
def redirect_port() -> Iterator[None]:
    """The published client knows one address only to which browsers are sent back: it is for one run at a time, and
    may be taken by a connection of anybody, as it is among the ports that the system gives to these."""
    with kept("redirect-port"):
        try:
            socket.create_server(("127.0.0.1", 48080)).close()
        except OSError as error:
            pytest.skip(f"port 48080, which the published client needs: {error.strerror}")
        yield


@pytest.fixture
def environment(tmp_path: Path, redirect_port: None) -> dict[str, str]:
    """Of a person with a browser."""
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    return {**kept, "HOME": str(tmp_path), "BROWSER": f"{sys.executable} {browser} %s"}


def test_nobody_else_is_let_in(service: Service) -> None:
    with micromegas.connect(address_of(service)) as client, pytest.raises(SignInRefused):
        client.query_arrow("SELECT 1 AS one")


def test_either_client_signs_in_and_reads_what_the_other_keeps(
    *,
    service: Service,
    module_provider: IdentityProviderServer,
    environment: dict[str, str],
    published_client_python: Path,
    tmp_path: Path,
) -> None:
    for number, first in enumerate(("theirs", "ours")):
        file = str(tmp_path / f"{first}.json")
        script = SIGNED_IN.format(
            address=address_of(service), issuer=module_provider.issuer, client_id=module_provider.client_id, file=file
        )
        module_provider.forms.clear()
        for who in ("theirs", "ours") if number == 0 else ("ours", "theirs"):
            if who == "theirs":
                with PublishedPackage(published_client_python, environment) as package:
                    assert package.run(script).split()[-1] == "1"
            else:
                command = [sys.executable, "-c", script]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=120, check=False
                )
                assert done.stdout == "1\n", done.stderr
        # the second found the first's tokens
        assert [form["grant_type"] for form in module_provider.forms] == ["authorization_code"]


def test_the_audit_names_the_person(service: Service, module_provider: IdentityProviderServer) -> None:
    with micromegas.connect(address_of(service), api_key=module_provider.id_token()) as client:
        client.query_arrow("SELECT 'asked by a person' AS told")
    (line,) = (line for line in service.log().splitlines() if "asked by a person" in line)
    told = json.loads(line[line.index("{") :])
    assert (told["user"], told["email"], told["name"]) == ("u-1", "ann@example.com", "Ann")
    assert told["service_account"] is False
