"""An identity provider (OpenID Connect) as a client asks it: where its endpoints are, and what they say. Must never
show a secret, nor what a provider says beside its error."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from micromegas.client.errors import SignInRefused

_TIMEOUT_S = 30.0
_LARGEST_ANSWER = 1 << 20


class ProviderRefused(SignInRefused):
    """The provider answered with an error; `code` is its name, such as `invalid_grant`."""

    def __init__(self, issuer: str, status: int, code: str) -> None:
        super().__init__(f"issuer {issuer}: answered {status}{f' {code}' if code else ''}")
        self.code = code


class IdentityProvider:
    """The provider at `issuer`. Raises `SignInRefused` when it can't be asked or answers what can't be used."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer.rstrip("/")
        self._found: dict[str, Any] | None = None

    def endpoint(self, name: str) -> str:
        """The address of an endpoint, such as `token_endpoint`."""
        address = self.optional_endpoint(name)
        if address is None:
            raise self.refusal(f"names no {name}")
        return address

    def optional_endpoint(self, name: str) -> str | None:
        """As `endpoint`, None for one that it doesn't have."""
        if self._found is None:
            self._found = self._asked(f"{self.issuer}/.well-known/openid-configuration", None)
        address = self._found.get(name)
        return address if isinstance(address, str) else None

    def tokens(self, form: Mapping[str, str]) -> dict[str, Any]:
        """What the token endpoint gives for a form; `ProviderRefused` for what it refuses."""
        return self.posted("token_endpoint", form)

    def posted(self, endpoint: str, form: Mapping[str, str]) -> dict[str, Any]:
        """What an endpoint answers to a form."""
        return self._asked(self.endpoint(endpoint), urllib.parse.urlencode(form).encode())

    def refusal(self, reason: str) -> SignInRefused:
        return SignInRefused(f"issuer {self.issuer}: {reason}")

    def _asked(self, url: str, form: bytes | None) -> dict[str, Any]:
        if not url.startswith(("https://", "http://")):
            raise self.refusal(f"{url[:200]!r} is no address")
        try:
            with urllib.request.urlopen(urllib.request.Request(url, form), timeout=_TIMEOUT_S) as reply:
                answer = json.loads(reply.read(_LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                raise ProviderRefused(self.issuer, error.code, _code_of(error)) from None
        except (OSError, ValueError) as error:
            raise self.refusal(str(error)) from None
        if not isinstance(answer, dict):
            raise self.refusal("its answer is no object")
        return answer


_KNOWN_CODES = frozenset(
    {
        "access_denied",
        "authorization_pending",
        "expired_token",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "slow_down",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)


def _code_of(error: urllib.error.HTTPError) -> str:
    """The name of an error, where it is one of those that OAuth has: anything else might hold what was sent."""
    try:
        answer = json.loads(error.read(_LARGEST_ANSWER))
    except (OSError, ValueError):
        return ""
    code = answer.get("error") if isinstance(answer, dict) else None
    return code if isinstance(code, str) and code in _KNOWN_CODES else ""
