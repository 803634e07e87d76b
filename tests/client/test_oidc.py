"""Tokens of an identity provider: obtained once, renewed before they end, and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from servers.token_endpoint import CLIENT_SECRET, TokenEndpoint

import micromegas
from micromegas.auth import OidcClientCredentialsProvider
from micromegas.cli.connection import connected
from micromegas.cli.options import Connection
from micromegas.client import SignInRefused
from micromegas.client.notebook import SqlMagic


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    running = TokenEndpoint()
    yield running
    running.close()


def provider_at(endpoint: TokenEndpoint, audience: str | None = None) -> OidcClientCredentialsProvider:
    return OidcClientCredentialsProvider(f"{endpoint.url}/realm/", "report", CLIENT_SECRET, audience)


def test_a_token_is_kept_while_it_is_good(endpoint: TokenEndpoint) -> None:
    provider = provider_at(endpoint, "lake")
    assert [provider.get_token() for _ in range(3)] == ["token-1"] * 3
    (form,) = endpoint.forms
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "report",
        "client_secret": CLIENT_SECRET,
        "audience": "lake",
    }
    assert CLIENT_SECRET not in repr(provider)


def test_one_that_soon_ends_is_renewed(endpoint: TokenEndpoint) -> None:
    endpoint.answer = lambda number, form: (200, {"access_token": f"token-{number}", "expires_in": 200})
    provider = provider_at(endpoint)
    assert [provider.get_token() for _ in range(2)] == ["token-1", "token-2"]


@pytest.mark.parametrize(
    "answer",
    [(401, {"error": CLIENT_SECRET}), (200, {}), (200, []), (200, b"no json"), (200, {"access_token": "a\r\nb"})],
)
def test_refusals_are_told_without_secrets(endpoint: TokenEndpoint, answer: tuple[int, object]) -> None:
    endpoint.answer = lambda number, form: answer
    with pytest.raises(SignInRefused, match="issuer http") as refused:
        provider_at(endpoint).get_token()
    assert CLIENT_SECRET not in str(refused.value)
    with pytest.raises(SignInRefused, match="404"):
        OidcClientCredentialsProvider(endpoint.url, "report", CLIENT_SECRET).get_token()
    with pytest.raises(SignInRefused, match="no address"):
        OidcClientCredentialsProvider("file:///etc", "report", CLIENT_SECRET).get_token()


def test_the_environment_signs_in(
    endpoint: TokenEndpoint, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", address)
    monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", f"{endpoint.url}/realm")
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "report")
    with pytest.raises(ValueError, match="CLIENT_SECRET is not set"):
        OidcClientCredentialsProvider.from_env()
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", CLIENT_SECRET)
    assert OidcClientCredentialsProvider.from_env().get_token() == "token-1"
    with micromegas.connect_with_profile() as client:
        assert len(client.query("SELECT 1 AS one")) == 1
    assert len(endpoint.forms) == 2
    with connected(Connection(None, None, None)) as client:
        assert client.query("SELECT 1 AS one").num_rows == 1
    assert len(endpoint.forms) == 3
    with connected(Connection(None, "key", None)) as client:
        assert client.query("SELECT 1 AS one").num_rows == 1
    SqlMagic(SimpleNamespace(user_ns={})).ask("", "SELECT 1 AS one")
    assert len(endpoint.forms) == 4
