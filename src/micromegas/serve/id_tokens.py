"""Tokens of identity providers (OpenID Connect), as anybody may present them: whose they are, once their signature,
issuer, audience and times have been checked. Never trusts what a token says before that."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from micromegas.config import OidcIssuer, OidcSettings

_TIMEOUT_S = 10.0
_LARGEST_ANSWER = 1 << 20
MAX_TOKEN = 16 * 1024
_CLOCK_SKEW_S = 60.0
# an unknown key may be new; strangers must not make us ask for it at will
_LEAST_REFRESH_S = 30.0
_RETRY_S = 1.0
_LEAST_KEY_BITS = 2048
_MOST_KEPT = 1000
# what stands before the hash in a PKCS #1 v1.5 signature with SHA-256 (RFC 8017, 9.2)
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_PROVEN_EMAIL_CLAIMS = ("verified_primary_email", "email")
# with some providers, persons choose these for themselves
_OTHER_EMAIL_CLAIMS = ("https://micromegas.io/email", "preferred_username", "upn", "unique_name")


class TokenRefused(Exception):
    """The token lets nobody in; the text says why, and nothing of the token."""


class ProviderUnreachable(Exception):
    """The provider can't be asked for its keys: whether the token is good isn't known."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who a token is of. `email` is what the provider calls them by, `proven_email` one that nobody else can have.
    `unique_subject`: the subject, together with its issuer where there are several, who number their users apart."""

    issuer: str
    subject: str
    unique_subject: str
    email: str | None
    name: str | None
    proven_email: str | None


class TokenVerifier:
    """Checks tokens of the issuers of the settings. For one event loop."""

    def __init__(self, settings: OidcSettings) -> None:
        self._keys = {each.issuer: _IssuerKeys(each, settings.keys_refresh_s) for each in settings.issuers}
        self._known: dict[bytes, tuple[Person, float]] = {}

    async def person_of(self, token: str) -> Person:
        """Raises `TokenRefused` or `ProviderUnreachable`."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(digest)
        if known is not None and time.time() < known[1]:
            return known[0]
        person, ends = await self._checked(token)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        # keys that are withdrawn must count soon
        self._known[digest] = person, min(ends, time.time() + _CLOCK_SKEW_S)
        return person

    async def _checked(self, token: str) -> tuple[Person, float]:
        if len(token) > MAX_TOKEN or token.count(".") != 2:
            raise TokenRefused("it is no token")
        signed, _, signature_text = token.rpartition(".")
        header_text, _, claims_text = signed.partition(".")
        header, claims, signature = _object(header_text), _object(claims_text), _decoded(signature_text)
        if header.get("alg") != "RS256":
            raise TokenRefused("it is not signed by RS256")
        keys = self._keys.get(str(claims.get("iss", "")).rstrip("/"))
        if keys is None:
            raise TokenRefused("its issuer is not one of this server's")
        key = await keys.key(header.get("kid"))
        if key is None or not key.has_signed(signed.encode("ascii", "replace"), signature):
            raise TokenRefused("its signature is not its issuer's")
        return _person(claims, keys.issuer, is_only_issuer=len(self._keys) == 1)


@dataclass(frozen=True, slots=True)
class _RsaKey:
    modulus: int
    exponent: int

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """RSASSA-PKCS1-v1_5 with SHA-256: the whole padded message is compared, none of it is parsed."""
        length = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature)
        if len(signature) != length or number >= self.modulus:
            return False
        tail = b"\x00" + _SHA256_PREFIX + hashlib.sha256(text).digest()
        expected = b"\x00\x01".ljust(length - len(tail), b"\xff") + tail
        return hmac.compare_digest(pow(number, self.exponent, self.modulus).to_bytes(length), expected)


@dataclass(slots=True)
class _IssuerKeys:
    """The keys of one issuer; asked for when they are needed, old, or lack one."""

    issuer: OidcIssuer
    refresh_s: float
    _keys: dict[object, _RsaKey] = field(default_factory=dict)
    _known_at: float = float("-inf")
    _failed_at: float = float("-inf")
    _failure: str = ""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def key(self, key_id: object) -> _RsaKey | None:
        # a provider that takes its time must hold up those only for whom there is no other way
        if self._lock.locked() and (known := self._found(key_id)) is not None:
            return known
        async with self._lock:
            now = time.monotonic()
            is_old = now - self._known_at > self.refresh_s
            is_missing = self._found(key_id) is None and now - self._known_at > _LEAST_REFRESH_S
            if (is_old or is_missing) and now - self._failed_at > _RETRY_S:
                await self._refresh()
            if not self._keys:
                raise ProviderUnreachable(f"the keys of {self.issuer.issuer} can't be had: {self._failure}")
            return self._found(key_id)

    async def _refresh(self) -> None:
        """What fails leaves the keys as they were: an hour old, they are better than nobody's getting in."""
        try:
            self._keys = await asyncio.to_thread(_fetched, self.issuer.issuer)
            self._known_at = time.monotonic()
        except (OSError, ValueError, http.client.HTTPException, TokenRefused) as error:
            self._failure = str(error)
            self._failed_at = time.monotonic()

    def _found(self, key_id: object) -> _RsaKey | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id) if isinstance(key_id, str) else None


def _person(claims: Mapping[str, Any], issuer: OidcIssuer, *, is_only_issuer: bool) -> tuple[Person, float]:
    """Who it is, and until when (s since the epoch)."""
    audience = claims.get("aud")
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenRefused("it is for another audience")
    now, ends, begins = time.time(), claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(ends, int | float) or ends + _CLOCK_SKEW_S < now:
        raise TokenRefused("it has ended")
    if not isinstance(begins, int | float) or begins - _CLOCK_SKEW_S > now:
        raise TokenRefused("it is not good yet")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise TokenRefused("it names nobody")
    is_verified = claims.get("email_verified", True) not in (False, "false")
    proven = _first(claims, _PROVEN_EMAIL_CLAIMS[: 1 + is_verified])
    email = proven or _first(claims, _OTHER_EMAIL_CLAIMS)
    unique = subject if is_only_issuer else qualified(issuer.issuer, subject)
    person = Person(issuer.issuer, subject, unique, email, _first(claims, ("name",)), proven)
    return person, ends + _CLOCK_SKEW_S


def qualified(issuer: str, subject: str) -> str:
    """A subject as settings name it among those of several issuers."""
    return f"{issuer}#{subject}"


def _first(claims: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if isinstance(text := claims.get(name), str) and text), None)


def _fetched(issuer: str) -> dict[object, _RsaKey]:
    """The issuer's keys by their ids; raises `OSError` or `ValueError`."""
    address = _asked(f"{issuer}/.well-known/openid-configuration").get("jwks_uri")
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        raise ValueError("it names no jwks_uri")
    entries = _asked(address).get("keys")
    found: dict[object, _RsaKey] = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kty") == "RSA" and entry.get("use", "sig") == "sig":
            modulus, exponent = (int.from_bytes(_decoded(str(entry.get(part, "")))) for part in ("n", "e"))
            if modulus.bit_length() >= _LEAST_KEY_BITS and exponent >= 3:
                found[entry.get("kid")] = _RsaKey(modulus, exponent)
    if not found:
        raise ValueError("it has no keys for RS256")
    return found


def _asked(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as reply:
        answer = json.loads(reply.read(_LARGEST_ANSWER))
    if not isinstance(answer, dict):
        raise ValueError("its answer is no object")
    return answer


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(text))
    except (ValueError, RecursionError):
        raise TokenRefused("it can't be read") from None
    if not isinstance(found, dict):
        raise TokenRefused("it can't be read")
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TokenRefused("it can't be read") from None
