"""Signing in as a person, in programs of their own with a browser of ours, at a provider that keeps the rules."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
from servers.identity_provider import IdentityProviderServer

import micromegas
from micromegas.auth import OidcAuthProvider
from micromegas.client import SignInRefused
from micromegas.client.id_token import checked_claims
from micromegas.client.identity_provider import IdentityProvider
from micromegas.client.redirect_listener import RedirectListener
from micromegas.client.token_file import lock_file_of

BROWSER = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=30).read()"
SCRIPT = """
import sys
from micromegas import oidc_connection
person = oidc_connection.load_or_login(sys.argv[1], sys.argv[2], token_file=sys.argv[3])
print(person.get_token())
"""
COMMAND = (sys.executable, "-m", "micromegas")


@pytest.fixture
def environment(provider: IdentityProviderServer, tmp_path: Path, address: str) -> dict[str, str]:
    """Of a person with a browser, whose default server asks them to sign in at the provider."""
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    settings = {"uri": address, "client_id": provider.client_id, "issuers": [{"issuer": provider.issuer}]}
    (tmp_path / ".micromegas").mkdir()
    (tmp_path / ".micromegas" / "config.json").write_text(json.dumps(settings))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    # the usual one may be taken on this machine
    redirect = {"MICROMEGAS_OIDC_REDIRECT_URI": "http://localhost:0/callback"}
    return {**kept, **redirect, "HOME": str(tmp_path), "BROWSER": f"{sys.executable} {browser} %s"}


def finished(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def tokens_file(environment: dict[str, str]) -> Path:
    return Path(environment["HOME"]) / ".micromegas" / "tokens.json"


def test_a_person_signs_in_once(provider: IdentityProviderServer, environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "deep" / "tokens.json"
    command = (sys.executable, "-c", SCRIPT, provider.issuer, provider.client_id, str(file))
    first, second = finished(environment, *command), finished(environment, *command)
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.count(".") == 2
    assert provider.url in first.stderr
    assert second.stderr == ""
    assert [form["grant_type"] for form in provider.forms] == ["authorization_code"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_who_refuses_is_not_signed_in(provider: IdentityProviderServer, environment: dict[str, str]) -> None:
    provider.refuses = True
    for more in ((), ("--device",)):
        refused = finished(environment, *COMMAND, "login", *more)
        assert refused.returncode == 4
        assert refused.stderr.splitlines()[-1].startswith("micromegas: ")
        assert "said no" in refused.stderr or "access_denied" in refused.stderr
    assert not tokens_file(environment).exists()


def test_commands_are_those_of_who_signed_in(provider: IdentityProviderServer, environment: dict[str, str]) -> None:
    for command in (("query", "SELECT 1 AS one", "--json"), ("processes", "--json")):
        done = finished(environment, *COMMAND, *command)
        assert done.returncode == 0, done.stderr
    assert len(provider.forms) == 1
    assert finished(environment, *COMMAND, "logout").stderr == "micromegas: signed out\n"
    assert finished(environment, *COMMAND, "logout").stderr == "micromegas: nobody was signed in\n"
    assert finished(environment, *COMMAND, "login").returncode == 0
    assert len(provider.forms) == 2


def test_without_a_browser_a_code_is_typed_in_elsewhere(
    provider: IdentityProviderServer, environment: dict[str, str]
) -> None:
    provider.answers_pending = 3
    done = finished(environment, *COMMAND, "login", "--device")
    assert done.returncode == 0, done.stderr
    assert f"open {provider.url}/device and type in WDJB-MJHT" in done.stderr
    assert len(provider.forms) == 5
    assert json.loads(tokens_file(environment).read_text())["issuer"] == provider.issuer


def test_what_needs_an_issuer_says_so(environment: dict[str, str]) -> None:
    (Path(environment["HOME"]) / ".micromegas" / "config.json").write_text("{}")
    told = finished(environment, *COMMAND, "login")
    assert told.returncode == 1
    assert "MICROMEGAS_OIDC_ISSUER" in told.stderr


def signed_in(provider: IdentityProviderServer, file: Path) -> OidcAuthProvider:
    """As if somebody had come by the browser."""
    person = OidcAuthProvider(provider.issuer, provider.client_id, None, str(file), provider._tokens(None))
    person.save()
    return person


def test_tokens_are_renewed_before_they_end(provider: IdentityProviderServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    provider.seconds = 200
    signed_in(provider, file)
    provider.seconds = 3600
    person = OidcAuthProvider.from_file(str(file))
    renewed = person.get_token()
    assert person.get_token() == renewed
    assert len(provider.forms) == 1
    # what was renewed is there for others, whose own refresh token is worth nothing now
    assert OidcAuthProvider.from_file(str(file)).get_token() == renewed
    assert len(provider.forms) == 1
    assert renewed not in repr(person)


def test_two_programs_that_share_a_file_both_stay_signed_in(provider: IdentityProviderServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    provider.seconds = 200
    signed_in(provider, file)
    one, other = OidcAuthProvider.from_file(str(file)), OidcAuthProvider.from_file(str(file))
    provider.seconds = 3600
    assert one.get_token() == other.get_token()
    assert len(provider.forms) == 1


def test_one_program_renews_while_the_others_wait(provider: IdentityProviderServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    provider.seconds = 200
    person = signed_in(provider, file)
    provider.seconds = 3600
    renewed = provider._tokens(None)
    with ThreadPoolExecutor() as other:
        with lock_file_of(file).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            token = other.submit(person.get_token)
            with pytest.raises(TimeoutError):
                token.result(0.5)
            OidcAuthProvider(provider.issuer, provider.client_id, None, str(file), renewed).save()
        assert token.result(60) == renewed["id_token"]
    assert provider.forms == []


def test_who_can_not_be_renewed_signs_in_again(provider: IdentityProviderServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    provider.seconds = 1
    person = signed_in(provider, file)
    provider._refresh_tokens.clear()
    with pytest.raises(SignInRefused, match=r"has ended .*sign in again"):
        person.get_token()
    without = OidcAuthProvider(provider.issuer, provider.client_id, token={"access_token": "a", "expires_at": 5})
    with pytest.raises(SignInRefused, match="sign in again"):
        without.get_token()


def test_what_is_still_good_needs_no_provider(provider: IdentityProviderServer, tmp_path: Path) -> None:
    provider.seconds = 200
    token = provider._tokens(None)
    away = OidcAuthProvider("http://127.0.0.1:1/realm", provider.client_id, token=token)
    assert away.get_token() == away.get_token() == token["id_token"]
    provider.seconds = -1
    ended = OidcAuthProvider("http://127.0.0.1:1/realm", provider.client_id, token=provider._tokens(None))
    with pytest.raises(SignInRefused, match="refused"):
        ended.get_token()


def test_tokens_that_can_not_be_kept(
    provider: IdentityProviderServer,
    environment: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tokens_file(environment).mkdir()
    told = finished(environment, *COMMAND, "login", "--device")
    assert told.returncode == 4
    assert "the tokens can't be kept: Is a directory" in told.stderr
    assert "Traceback" not in told.stderr
    # whoever signed in before goes on with what was renewed
    provider.seconds = 200
    file = tmp_path / "tokens.json"
    signed_in(provider, file)
    person = OidcAuthProvider.from_file(str(file))
    provider.seconds = 3600
    file.unlink()
    file.mkdir()
    assert person.get_token() == person.get_token()
    assert len(provider.forms) == 4
    assert capfd.readouterr().err.count("can't be kept") == 1


def test_an_access_token_is_presented_where_there_is_no_other(provider: IdentityProviderServer) -> None:
    token = {"access_token": "opaque", "expires_at": time.time() + 3600}
    assert OidcAuthProvider(provider.issuer, provider.client_id, token=token).get_token() == "opaque"


@pytest.mark.parametrize(
    ("claims", "algorithm", "told"),
    [
        ({"iss": "https://evil"}, "RS256", "another issuer"),
        ({"aud": "somebody-else"}, "RS256", "another client"),
        ({"exp": 1000}, "RS256", "ended already"),
        ({"nonce": "old"}, "RS256", "another sign-in"),
        ({}, "none", "not signed"),
        ({}, "NonE", "not signed"),
    ],
)
def test_tokens_that_are_not_for_us_are_refused(
    provider: IdentityProviderServer, claims: dict[str, object], algorithm: str, told: str
) -> None:
    known = IdentityProvider(provider.issuer)
    assert checked_claims(provider.id_token(nonce="new"), known, provider.client_id, "new")["sub"] == "u-1"
    provider.claims, provider.algorithm = claims, algorithm
    with pytest.raises(SignInRefused, match=told):
        checked_claims(provider.id_token(nonce="new"), known, provider.client_id, "new")


def test_a_token_of_another_sign_in_signs_nobody_in(
    provider: IdentityProviderServer, environment: dict[str, str]
) -> None:
    provider.claims = {"nonce": "old"}
    refused = finished(environment, *COMMAND, "login")
    assert refused.returncode == 4
    assert "another sign-in" in refused.stderr
    assert not tokens_file(environment).exists()


def test_who_has_no_place_to_come_back_to_hears_what_to_set(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"http://localhost:{taken.getsockname()[1]}/callback"
        refused = finished(environment | {"MICROMEGAS_OIDC_REDIRECT_URI": place}, *COMMAND, "login")
    assert refused.returncode == 4
    assert place in refused.stderr
    assert "set MICROMEGAS_OIDC_REDIRECT_URI" in refused.stderr


def test_only_who_began_is_answered() -> None:
    with RedirectListener("http://localhost:0/back", "right") as listener:
        address = listener.redirect_uri.replace("localhost", "127.0.0.1")
        for path in ("", "?state=wrong&code=evil", "/other?state=right&code=evil"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path, timeout=30)
        with urllib.request.urlopen(f"{address}?{urlencode({'state': 'right', 'code': 'c'})}", timeout=30) as page:
            assert b"signed in" in page.read()
        assert listener.code(30) == "c"
        with pytest.raises(SignInRefused, match="nobody signed in"):
            listener.code(0.01)
        with pytest.raises(SignInRefused, match="can't be listened to"):
            RedirectListener(listener.redirect_uri, "x")


@pytest.mark.parametrize(
    "address", ["https://localhost:1/x", "http://example.com:1/", "http://localhost/", "http://localhost:x/", "x"]
)
def test_other_addresses_are_not_listened_to(address: str) -> None:
    with pytest.raises(SignInRefused, match="not an http address of this machine"):
        RedirectListener(address, "state")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"issuer": 1, "client_id": "c", "token": {}}'])
def test_a_file_that_holds_no_tokens_is_no_sign_in(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011
        OidcAuthProvider.from_file(str(file))


def test_the_original_reads_what_we_keep(provider: IdentityProviderServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    signed_in(provider, file)
    kept = json.loads(file.read_text())
    assert kept.keys() == {"issuer", "client_id", "token"}
    assert kept["token"]["id_token"]
    assert micromegas.auth.OidcAuthProvider.from_file(str(file)).get_token() == kept["token"]["id_token"]  # type: ignore[attr-defined]
