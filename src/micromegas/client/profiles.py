"""Named servers in `~/.micromegas/config.json`, and the environment that decides before them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from micromegas.client.client import DEFAULT_ADDRESS, flight_address
from micromegas.client.credentials import AuthProvider, StaticTokenAuthProvider

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_KEYS = ("uri", "api_key_file", "client_id", "issuers")


class ProfileError(ValueError):
    """A profile that isn't there, or says what can't be; the text names it and the file."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A server and how to sign in there: with a key, by OpenID Connect (`issuer` and `client_id` both known), or not at
    all."""

    name: str | None
    uri: str
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    audience: str | None = None
    scope: str | None = None

    def static_token(self) -> AuthProvider | None:
        """The key of this profile, where it has one. `ProfileError` for a file that holds none."""
        try:
            if self.api_key is not None:
                return StaticTokenAuthProvider(self.api_key)
            return None if self.api_key_file is None else StaticTokenAuthProvider.from_file(self.api_key_file)
        except OSError as error:
            raise ProfileError(f"api_key_file {self.api_key_file}: {error.strerror}") from None
        except ValueError as error:
            raise ProfileError(str(error)) from None


def config_file(home: Path) -> Path:
    """Where profiles are written down."""
    return home / ".micromegas" / "config.json"


def load_profile(name: str | None, environment: Mapping[str, str], home: Path, *, server: str | None = None) -> Profile:
    """The profile of this name, else of MICROMEGAS_PROFILE, else the file's `default_profile`.

    Each value comes from the environment, else from the profile, else from the top of the file, else it is the default.
    `server` is an address to ask instead of the profile's. Unless the profile was named beside it, what is known of how
    to sign in at another address is not for it: it would learn the other's key. Raises `ProfileError`.
    """
    path = config_file(home)
    profile = _profile(name, environment, path, _read(path))
    if server is None or name is not None or same_server(server, profile.uri):
        return profile if server is None else replace(profile, uri=server)
    if environment.get("MICROMEGAS_ANALYTICS_URI"):
        return Profile(None, server)
    # without an address beside it, what the environment says is for any
    unnamed = {key: value for key, value in environment.items() if key != "MICROMEGAS_PROFILE"}
    return replace(_profile(None, unnamed, path, {}), uri=server)


def same_server(one: str, other: str) -> bool:
    """Whether two addresses are of the same server, in Flight's scheme or HTTP's, and both with TLS or without."""
    return _plain(one) == _plain(other)


def _plain(address: str) -> str:
    return flight_address(address).rstrip("/").lower()


def _profile(name: str | None, environment: Mapping[str, str], path: Path, document: Mapping[str, Any]) -> Profile:
    chosen = name or environment.get("MICROMEGAS_PROFILE") or _text(path, document, "default_profile")
    values = {key: document[key] for key in _KEYS if key in document}
    if chosen is not None:
        values |= _section(path, document, chosen)
    issuers = values.get("issuers") or [{}]
    if not isinstance(issuers, list) or not isinstance(issuers[0], dict):
        raise ProfileError(f"{path}: issuers must be a list of objects")
    key_file = _text(path, values, "api_key_file")
    profile = Profile(
        name=chosen,
        uri=environment.get("MICROMEGAS_ANALYTICS_URI") or _text(path, values, "uri") or DEFAULT_ADDRESS,
        api_key=environment.get("MICROMEGAS_API_KEY") or None,
        api_key_file=None if key_file is None else Path(key_file).expanduser(),
        issuer=environment.get("MICROMEGAS_OIDC_ISSUER") or _text(path, issuers[0], "issuer"),
        client_id=environment.get("MICROMEGAS_OIDC_CLIENT_ID") or _text(path, values, "client_id"),
        client_secret=environment.get("MICROMEGAS_OIDC_CLIENT_SECRET") or None,
        audience=environment.get("MICROMEGAS_OIDC_AUDIENCE") or _text(path, issuers[0], "audience"),
        scope=environment.get("MICROMEGAS_OIDC_SCOPE") or None,
    )
    if profile.api_key_file is not None and profile.issuer and profile.client_id:
        raise ProfileError(f"profile {chosen or 'default'}: both api_key_file and an issuer sign in; remove one")
    return profile


def _section(path: Path, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    if _NAME.fullmatch(name) is None:
        raise ProfileError(f"profile {name[:100]!r}: names are made of letters, digits, '.', '_' and '-'")
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ProfileError(f"{path}: profiles must be an object")
    section = profiles.get(name)
    if not isinstance(section, dict):
        known = ", ".join(sorted(profiles)) or "none"
        raise ProfileError(f"profile {name} is not in {path}; profiles there: {known}")
    # who signs in with a key there doesn't with the issuer of the others, and the other way round
    other = {"api_key_file": ("issuers", "client_id"), "issuers": ("api_key_file",)}
    replaced = {key for given, keys in other.items() if given in section for key in keys if key not in section}
    return {key: section.get(key) for key in _KEYS if key in section or key in replaced}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ProfileError(f"{path}: no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: must hold an object")
    return document


def _text(path: Path, values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise ProfileError(f"{path}: {key} must be a text")
    return value or None
