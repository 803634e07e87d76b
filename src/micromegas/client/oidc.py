"""Tokens that an identity provider gives to programs (OpenID Connect, client credentials). Must never show a secret."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from micromegas.client.errors import SignInRefused

# A token is renewed before it ends: clocks differ, and queries take a while.
_MARGIN_S = 300.0
_TIMEOUT_S = 30.0
_LARGEST_ANSWER = 1 << 20


class OidcClientCredentialsProvider:
    """The access token of a service; asked for at the first call and renewed five minutes before it ends.

    Raises `SignInRefused` when the provider at `issuer` can't be asked or gives none.
    """

    def __init__(self, issuer: str, client_id: str, client_secret: str, audience: str | None = None) -> None:
        self._issuer = issuer.rstrip("/")
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
        found = self._asked(f"{self._issuer}/.well-known/openid-configuration", None)
        endpoint = found.get("token_endpoint")
        if not isinstance(endpoint, str):
            raise SignInRefused(f"issuer {self._issuer}: names no token_endpoint")
        asked = time.monotonic()
        answer = self._asked(endpoint, urllib.parse.urlencode(self._form).encode())
        token, seconds = answer.get("access_token"), answer.get("expires_in", 0)
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise SignInRefused(f"issuer {self._issuer}: gave no access_token")
        self._token = token
        # one that ends sooner than the margin is used for its call only
        self._good_until = asked + float(seconds if isinstance(seconds, int | float) else 0) - _MARGIN_S

    def _asked(self, url: str, form: bytes | None) -> dict[str, Any]:
        if not url.startswith(("https://", "http://")):
            raise SignInRefused(f"issuer {self._issuer}: {url[:200]!r} is no address")
        try:
            with urllib.request.urlopen(urllib.request.Request(url, form), timeout=_TIMEOUT_S) as reply:
                answer = json.loads(reply.read(_LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            raise SignInRefused(f"issuer {self._issuer}: answered {error.code}") from None
        except (OSError, ValueError) as error:
            raise SignInRefused(f"issuer {self._issuer}: {error}") from None
        if not isinstance(answer, dict):
            raise SignInRefused(f"issuer {self._issuer}: its answer is no object")
        return answer

    def __repr__(self) -> str:
        return f"OidcClientCredentialsProvider({self._issuer!r}, …)"


def _variable(name: str) -> str:
    value = os.environ.get(f"MICROMEGAS_OIDC_{name}", "")
    if not value:
        raise ValueError(f"MICROMEGAS_OIDC_{name} is not set")
    return value
