"""An identity provider (OpenID Connect) for tests: discovery, authorization code with PKCE, device codes, refresh
tokens that can be used once, and keys that sign. Whoever asks in a browser is its one user, and consents unless
`refuses`."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from servers.json_http import JsonHandler
from servers.threaded_http import ThreadedHttpServer

USER = {"sub": "u-1", "email": "ann@example.com", "name": "Ann"}


class IdentityProviderServer(ThreadedHttpServer):
    """`seconds`: how long its tokens are good. `claims` overrides those of ID tokens; `algorithm` is told in them.
    While `may_answer` isn't set, whoever gets a page waits; `is_asked` tells that somebody does."""

    def __init__(self, client_id: str = "lake-clients") -> None:
        pytest.importorskip("cryptography", reason="cryptography signs the tokens of these tests")
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.client_id = client_id
        self.seconds = 3600
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.refuses = False
        self.answers_pending = 1
        self.forms: list[dict[str, str]] = []
        self.key_id = "key-1"
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_tokens: set[str] = set()
        self.is_up = True
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_asked = threading.Event()
        owner = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if not owner.may_answer.is_set():
                    owner.is_asked.set()
                    owner.may_answer.wait(60)
                if not owner.is_up:
                    self.answer(503, {})
                elif asked.path == "/realm/.well-known/openid-configuration":
                    self.answer(200, owner.discovery())
                elif asked.path == "/keys":
                    self.answer(200, owner.keys())
                elif asked.path == "/authorize":
                    self.send_response(302)
                    self.send_header("location", owner.authorized(dict(parse_qsl(asked.query))))
                    self.send_header("content-length", "0")
                    self.end_headers()
                else:
                    self.answer(404, {})

            def do_POST(self) -> None:
                form = dict(parse_qsl(self.body()))
                owner.forms.append(form)
                if self.path == "/device":
                    self.answer(200, owner.device_code(form))
                else:
                    self.answer(*owner.token(form))

        super().__init__(Handler)
        self.issuer = f"{self.url}/realm"

    def discovery(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "jwks_uri": f"{self.url}/keys",
        }

    def keys(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id}
        return {"keys": [{**key, "n": _base64(_bytes(numbers.n)), "e": _base64(_bytes(numbers.e))}]}

    def authorized(self, asked: dict[str, str]) -> str:
        """Where the browser is sent."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == self.client_id
        assert asked["code_challenge_method"] == "S256"
        answer = {"state": asked["state"]}
        if self.refuses:
            answer |= {"error": "access_denied", "error_description": "she said no"}
        else:
            answer["code"] = secrets.token_urlsafe()
            self._codes[answer["code"]] = asked
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def device_code(self, form: dict[str, str]) -> dict[str, Any]:
        assert form["client_id"] == self.client_id
        code = secrets.token_urlsafe()
        self._codes[code] = {}
        return {
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.url}/device",
            "expires_in": 60,
            "interval": 0.01,
        }

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        refused = 400, {"error": "invalid_grant"}
        if form.get("client_id") != self.client_id:
            return 401, {"error": "invalid_client"}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self._refresh_tokens:
                return refused
            self._refresh_tokens.remove(form["refresh_token"])
            return 200, self._tokens(None)
        if form["grant_type"].endswith("device_code"):
            if self.refuses:
                return 400, {"error": "access_denied"}
            if self.answers_pending > 0:
                self.answers_pending -= 1
                return 400, {"error": "authorization_pending"}
            return refused if self._codes.pop(form["device_code"], None) is None else (200, self._tokens(None))
        asked = self._codes.pop(form["code"], None)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return refused
        if asked["code_challenge"] != _base64(hashlib.sha256(form["code_verifier"].encode()).digest()):
            return refused
        return 200, self._tokens(asked.get("nonce"))

    def _tokens(self, nonce: str | None) -> dict[str, Any]:
        refresh = secrets.token_urlsafe()
        self._refresh_tokens.add(refresh)
        return {
            "access_token": secrets.token_urlsafe(),
            "token_type": "Bearer",
            "expires_in": self.seconds,
            "refresh_token": refresh,
            "id_token": self.id_token(**({} if nonce is None else {"nonce": nonce})),
        }

    def id_token(self, **more: Any) -> str:
        """Signed by this provider's key."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + self.seconds, **USER}
        header = {"alg": self.algorithm, "kid": self.key_id, "typ": "JWT"}
        parts = (json.dumps(part).encode() for part in (header, claims | more | self.claims))
        signed = ".".join(map(_base64, parts))
        return f"{signed}.{_base64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)
