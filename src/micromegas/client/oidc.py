"""Tokens that an identity provider gives to programs (OpenID Connect, client credentials). Must never show a secret."""

from __future__ import annotations

import os
import threading
import time

from micromegas.client.identity_provider import IdentityProvider

MARGIN_S = 300.0
"""A token is renewed before it ends: clocks differ, and queries take a while."""


class OidcClientCredentialsProvider:
    """The access token of a service; asked for at the first call and renewed five minutes before it ends.

    Raises `SignInRefused` when the provider at `issuer` can't be asked or gives none.
    """

    def __init__(self, issuer: str, client_id: str, client_secret: str, audience: str | None = None) -> None:
        self._provider = IdentityProvider(issuer)
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        if audience is not None:
            self._form["audience"] = audience
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = float("-inf")

    @classmethod
    def from_env(cls) -> OidcClientCredentialsProvider:
        """Of MICROMEGAS_OIDC_ISSUER, _CLIENT_ID, _CLIENT_SECRET and, if set, _AUDIENCE. `ValueError` names the one that
        is missing."""
        issuer, client_id, client_secret = map(_variable, ("ISSUER", "CLIENT_ID", "CLIENT_SECRET"))
        return cls(issuer, client_id, client_secret, os.environ.get("MICROMEGAS_OIDC_AUDIENCE") or None)

    def get_token(self) -> str:
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._renew()
            return self._token

    def _renew(self) -> None:
        asked = time.monotonic()
        answer = self._provider.tokens(self._form)
        token, seconds = answer.get("access_token"), answer.get("expires_in", 0)
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise self._provider.refusal("gave no access_token")
        self._token = token
        # one that ends sooner than the margin is used for its call only
        self._good_until = asked + float(seconds if isinstance(seconds, int | float) else 0) - MARGIN_S

    def __repr__(self) -> str:
        return f"OidcClientCredentialsProvider({self._provider.issuer!r}, …)"


def _variable(name: str) -> str:
    value = os.environ.get(f"MICROMEGAS_OIDC_{name}", "")
    if not value:
        raise ValueError(f"MICROMEGAS_OIDC_{name} is not set")
    return value
