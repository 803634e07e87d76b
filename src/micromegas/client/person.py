"""Signing in as a person at an identity provider (OpenID Connect): in a browser, or by a code that is typed in on
another device. Tokens are kept in a file and renewed without asking again. Must never show a token or a secret."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
import threading
import time
import urllib.parse
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micromegas.client.errors import SignInRefused
from micromegas.client.id_token import checked_claims, expiry
from micromegas.client.identity_provider import IdentityProvider, ProviderRefused
from micromegas.client.oidc import MARGIN_S
from micromegas.client.redirect_listener import RedirectListener
from micromegas.client.token_file import KeptTokens, read_tokens, renewing, write_tokens

DEFAULT_SCOPE = "openid email profile offline_access"
DEFAULT_REDIRECT = "http://localhost:48080/callback"
_REDIRECT_VARIABLE = "MICROMEGAS_OIDC_REDIRECT_URI"
_WAIT_S = 300.0
_PAUSE_S = 10.0
"""Between two attempts to renew a token that is still good."""
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class OidcAuthProvider:
    """A person's ID token, or their access token where the scope asks for no other.

    Renewed five minutes before it ends; also kept in `token_file`, where one is named, for programs that come later.
    Raises `SignInRefused` when it can't be renewed: then the person must sign in again.
    """

    def __init__(  # noqa: PLR0917 # theirs
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None = None,
        token_file: str | None = None,
        token: dict[str, Any] | None = None,
        audience: str | None = None,
        scope: str | None = None,
    ) -> None:
        """`token` is what the provider's token endpoint gave."""
        self._provider = IdentityProvider(issuer)
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._token_file = None if token_file is None else Path(token_file).expanduser()
        self._token = dict(token or {})
        self._audience = audience
        self._scope = scope or DEFAULT_SCOPE
        self._lock = threading.Lock()
        self._renew_from = float("-inf")

    @classmethod
    def login(  # noqa: PLR0917 # theirs
        cls,
        issuer: str,
        client_id: str,
        client_secret: str | None = None,
        token_file: str | None = None,
        redirect_uri: str = DEFAULT_REDIRECT,
        audience: str | None = None,
        scope: str | None = None,
        *,
        device: bool = False,
    ) -> OidcAuthProvider:
        """Signs in with a browser, and waits five minutes for the person; by a code that is typed in elsewhere with
        `device`, or where there is no browser and the provider offers that.

        `redirect_uri`: where the provider sends the browser back to, an address of this machine that it knows; in
        place of the usual one MICROMEGAS_OIDC_REDIRECT_URI, where that is set. Port 0 takes a free one. Raises
        `SignInRefused`.
        """
        person = cls(issuer, client_id, client_secret, token_file, None, audience, scope)
        if device or (not _has_browser() and person._provider.optional_endpoint("device_authorization_endpoint")):
            person._sign_in_elsewhere()
        else:
            is_usual = redirect_uri == DEFAULT_REDIRECT
            person._sign_in_here((is_usual and os.environ.get(_REDIRECT_VARIABLE)) or redirect_uri)
        try:
            person.save()
        except OSError as error:
            raise SignInRefused(f"file {token_file}: the tokens can't be kept: {error.strerror}") from None
        return person

    @classmethod
    def from_file(cls, token_file: str, client_secret: str | None = None) -> OidcAuthProvider:
        """Who signed in before. Raises `OSError`, and `ValueError` for a file that holds something else."""
        kept = read_tokens(Path(token_file).expanduser())
        return cls(kept.issuer, kept.client_id, client_secret, token_file, kept.token, kept.audience)

    def get_token(self) -> str:
        with self._lock:
            left, now = self._seconds_left(), time.monotonic()
            if left <= 0 or (left < MARGIN_S and now >= self._renew_from):
                self._renew_from = now + _PAUSE_S
                with renewing(self._token_file):
                    self._renew()
            return self._bearer()

    def save(self) -> None:
        """Writes the tokens to their file, for its owner's eyes only. Raises `OSError`."""
        if self._token_file is not None:
            write_tokens(self._token_file, KeptTokens(self._issuer, self._client_id, self._token, self._audience))

    def is_of(self, issuer: str, client_id: str, audience: str | None) -> bool:
        """Whether these are the tokens of such a sign-in."""
        return (self._provider.issuer, self._client_id, self._audience) == (issuer.rstrip("/"), client_id, audience)

    def __repr__(self) -> str:
        return f"OidcAuthProvider({self._issuer!r}, …)"

    def _bearer(self) -> str:
        token = self._token.get("id_token") or self._token.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._provider.refusal("gave no token")
        return token

    def _seconds_left(self) -> float:
        return expiry(self._token) - time.time()

    def _renew(self) -> None:
        # another program may have renewed them, which makes those of here useless
        self._reread()
        if self._seconds_left() >= MARGIN_S:
            return
        refresh = self._token.get("refresh_token")
        if not isinstance(refresh, str):
            if self._seconds_left() > 0:
                return
            raise self._provider.refusal("the sign-in has ended; sign in again")
        try:
            answer = self._provider.tokens(self._form(grant_type="refresh_token", refresh_token=refresh))
        except ProviderRefused as error:
            self._reread()
            if self._seconds_left() > 0 and (not error.code or self._token.get("refresh_token") != refresh):
                return
            raise self._provider.refusal(f"the sign-in has ended ({error.code or 'refused'}); sign in again") from None
        except SignInRefused:
            # it can't be asked now: what is still good is good without it
            if self._seconds_left() > 0:
                return
            raise
        # what isn't given anew stays as it was
        self._take({**self._token, **answer}, None)
        if self._seconds_left() <= 0:
            raise self._provider.refusal("the sign-in can't be renewed; sign in again")
        try:
            self.save()
        except OSError as error:
            _tell(f"file {self._token_file}: the renewed tokens can't be kept: {error.strerror}")

    def _reread(self) -> None:
        if self._token_file is None:
            return
        try:
            kept = read_tokens(self._token_file)
        except (OSError, ValueError):
            return
        if (kept.issuer, kept.client_id, kept.audience) == (self._issuer, self._client_id, self._audience):
            self._token = kept.token

    def _take(self, token: dict[str, Any], nonce: str | None) -> None:
        """Keeps what the provider gave, once it is known to be for us."""
        if isinstance(token.get("id_token"), str):
            checked_claims(token["id_token"], self._provider, self._client_id, nonce)
        seconds = token.pop("expires_in", None)
        if isinstance(seconds, int | float):
            token["expires_at"] = int(time.time() + seconds)
        self._token = token
        self._bearer()

    def _form(self, **values: str) -> dict[str, str]:
        form = {**values, "client_id": self._client_id}
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret
        return form

    def _sign_in_here(self, redirect_uri: str) -> None:
        """Authorization code with PKCE: only who began this can end it."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with RedirectListener(redirect_uri, state) as listener:
            asked = {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": listener.redirect_uri,
                "scope": self._scope,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            if self._audience is not None:
                asked["audience"] = self._audience
            url = _with_query(self._provider.endpoint("authorization_endpoint"), asked)
            _tell(f"sign in with your browser, or open {url}")
            webbrowser.open(url)
            code = listener.code(_WAIT_S)
        form = self._form(
            grant_type="authorization_code", code=code, redirect_uri=listener.redirect_uri, code_verifier=verifier
        )
        self._take(self._provider.tokens(form), nonce)

    def _sign_in_elsewhere(self) -> None:
        """Device authorization (RFC 8628)."""
        form = self._form(scope=self._scope)
        if self._audience is not None:
            form["audience"] = self._audience
        asked = self._provider.posted("device_authorization_endpoint", form)
        code, user_code, address = (asked.get(key) for key in ("device_code", "user_code", "verification_uri"))
        if not isinstance(code, str) or not isinstance(user_code, str) or not isinstance(address, str):
            raise self._provider.refusal("gave no code to type in")
        _tell(f"to sign in, open {address} and type in {user_code}")
        interval, end = _number(asked, "interval", 5.0), time.monotonic() + _number(asked, "expires_in", _WAIT_S)
        while True:
            time.sleep(interval)
            try:
                answer = self._provider.tokens(self._form(grant_type=_DEVICE_GRANT, device_code=code))
                break
            except ProviderRefused as error:
                if error.code not in ("authorization_pending", "slow_down") or time.monotonic() > end:
                    raise
                if error.code == "slow_down":
                    interval += 5.0
        self._take(answer, None)


def load_or_login(  # noqa: PLR0917 # theirs
    issuer: str,
    client_id: str,
    client_secret: str | None = None,
    token_file: str | None = None,
    audience: str | None = None,
    scope: str | None = None,
) -> OidcAuthProvider:
    """Who signed in before, by default as `~/.micromegas/tokens.json` tells; else, or where that has ended, a new
    sign-in."""
    file = token_file or str(Path.home() / ".micromegas" / "tokens.json")
    try:
        person = OidcAuthProvider.from_file(file, client_secret)
        if person.is_of(issuer, client_id, audience):
            person.get_token()
            return person
    except (OSError, ValueError, SignInRefused):
        pass  # nobody, or no longer
    return OidcAuthProvider.login(issuer, client_id, client_secret, file, audience=audience, scope=scope)


def _with_query(address: str, values: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urllib.parse.urlencode(values)}"


def _number(answer: Mapping[str, Any], key: str, default: float) -> float:
    value = answer.get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else default


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _tell(line: str) -> None:
    sys.stderr.write(f"micromegas: {line}\n")
    sys.stderr.flush()
