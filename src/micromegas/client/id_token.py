"""What an ID token says of itself. It came from the provider's own endpoint, whose certificate vouches for it (OpenID
Connect Core 3.1.3.7): its signature is checked by servers, which get it from anybody."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from micromegas.client.identity_provider import IdentityProvider

_CLOCK_SKEW_S = 300.0


def checked_claims(token: str, provider: IdentityProvider, client_id: str, nonce: str | None) -> dict[str, Any]:
    """The claims of a token that is signed, for this client, of this provider, and for this sign-in where it is a new
    one; raises `SignInRefused` for any other."""
    header, claims = _part(token, 0), _part(token, 1)
    if header is None or claims is None:
        raise provider.refusal("its id token can't be read")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise provider.refusal("its id token is not signed")
    if str(claims.get("iss", "")).rstrip("/") != provider.issuer:
        raise provider.refusal("its id token names another issuer")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise provider.refusal("its id token is for another client")
    if nonce is not None and claims.get("nonce") != nonce:
        raise provider.refusal("its id token belongs to another sign-in")
    if _seconds(claims.get("exp")) < time.time() - _CLOCK_SKEW_S:
        raise provider.refusal("its id token has ended already")
    return claims


def expiry(token: Mapping[str, Any]) -> float:
    """Until when (s since the epoch) what a token endpoint gave may be presented; 0 where nothing tells."""
    id_token = token.get("id_token")
    if isinstance(id_token, str):
        return _seconds((_part(id_token, 1) or {}).get("exp"))
    return _seconds(token.get("expires_at"))


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _part(token: str, position: int) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    text = parts[position]
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
