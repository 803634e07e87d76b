"""The identity providers (OpenID Connect) whose users may ask."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OidcIssuer:
    """A provider, by the address that its tokens name, and the audience that they must be for (the id of clients)."""

    issuer: str
    audience: str


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The providers, and for how many seconds their keys are believed without asking again."""

    issuers: tuple[OidcIssuer, ...]
    keys_refresh_s: float = 3600.0


def parse_oidc_settings(text: str) -> OidcSettings:
    """Read `{"issuers": [{"issuer", "audience"}], "jwks_refresh_interval_secs"}`; other members are those of the
    original's caches and ignored. Raises `ValueError` that says what is wrong."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"oidc: not JSON at character {error.pos}") from None
    entries = document.get("issuers") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError("oidc: no list of issuers")
    issuers = []
    for position, entry in enumerate(entries):
        issuer, audience = (entry.get("issuer"), entry.get("audience")) if isinstance(entry, dict) else (None, None)
        if not isinstance(issuer, str) or not issuer.startswith(("https://", "http://")):
            raise ValueError(f"oidc: issuer {position} has no address")
        # without one, tokens that were given for any other program would let in
        if not isinstance(audience, str) or not audience:
            raise ValueError(f"oidc: issuer {position} has no audience")
        issuers.append(OidcIssuer(issuer.rstrip("/"), audience))
    seconds = document.get("jwks_refresh_interval_secs", 3600)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        raise ValueError("oidc: jwks_refresh_interval_secs is no number of seconds")
    return OidcSettings(tuple(issuers), float(seconds))
