"""Who asks: the holder of an API key, or a person by the token of an identity provider; nobody in particular where
neither is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from micromegas.config.answering import AnsweringSettings
from micromegas.config.oidc import OidcSettings
from micromegas.ingest.authentication import AdmissionUnknown
from micromegas.serve.api_keys import ApiKeys, presented_key
from micromegas.serve.audit import Caller, caller_of
from micromegas.serve.id_tokens import Person, ProviderUnreachable, TokenRefused, TokenVerifier, qualified


class SignInError(Exception):
    """Whoever asks may not; `kind` is what protocols have statuses for."""

    def __init__(self, kind: Literal["unauthenticated", "denied", "unavailable"], message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Identity:
    """The name of a key, or a person, or neither."""

    key_name: str | None = None
    person: Person | None = None

    @property
    def user(self) -> str:
        """For the rules of who may ask what: no name that persons can choose for themselves."""
        if self.person is not None:
            return self.person.proven_email or self.person.unique_subject
        return self.key_name or ""

    @property
    def names(self) -> frozenset[str]:
        """By which a person may be called."""
        if self.person is None:
            return frozenset()
        return frozenset(name for name in (self.person.subject, self.person.email) if name is not None)

    def caller(self, headers: Iterable[tuple[str, str]], peer: str) -> Caller:
        """For the audit, with what the headers tell. The holder of a key may ask for others, a person may not:
        `SignInError`."""
        return self.vouched(caller_of(headers, peer, self.key_name))

    def vouched(self, told: Caller) -> Caller:
        """The same for a caller who told of itself in another way."""
        if self.person is None:
            return told
        subject, email = self.person.subject, self.person.email
        if told.user not in {"unknown", *self.names} or told.email not in ("unknown", email):
            raise SignInError("denied", "a person can't ask in the name of another")
        return replace(told, user=subject, email=email or "unknown", name=self.person.name)


class SignIn:
    """The rules of one server."""

    def __init__(self, settings: AnsweringSettings) -> None:
        self._keys = ApiKeys(settings.api_keys)
        self._admins = settings.admins
        self._tokens = None if settings.oidc is None else TokenVerifier(settings.oidc)

    @property
    def is_asked_for(self) -> bool:
        """Whether one must say who one is."""
        return bool(self._keys) or self._tokens is not None

    async def identity(self, authorization: str) -> Identity:
        """Who presents this header; raises `SignInError` for who may not ask."""
        key = presented_key(authorization)
        name = self._keys.name_of(key)
        if name is not None or not self.is_asked_for:
            return Identity(name)
        if self._tokens is None or key is None:
            raise SignInError("unauthenticated", "a valid api key is needed: authorization: Bearer <key>")
        try:
            return await self.person(key)
        except SignInError as error:
            if error.kind == "unauthenticated":
                error.message = f"a valid api key or token is needed: authorization: Bearer <key>; {error.message}"
            raise

    async def person(self, token: str) -> Identity:
        """Whose token this is; raises `SignInError`."""
        if self._tokens is None:
            raise SignInError("unauthenticated", "no tokens are taken here")
        try:
            return Identity(person=await self._tokens.person_of(token))
        except TokenRefused as error:
            raise SignInError("unauthenticated", f"as a token, {error}") from None
        except ProviderUnreachable as error:
            raise SignInError("unavailable", str(error)) from None

    def administers(self, identity: Identity) -> bool:
        """Whether functions that change partitions are there for them: by the name of the key, e-mail or subject, which
        counts alone where there is one issuer only."""
        if not self._admins:
            return True
        person = identity.person
        names = (
            {identity.key_name}
            if person is None
            else {person.unique_subject, qualified(person.issuer, person.subject), person.proven_email}
        )
        return not self._admins.isdisjoint(names)


class TokenAdmission:
    """Whose telemetry is taken: of whoever has a token for one of these audiences, a person or a program."""

    def __init__(self, settings: OidcSettings) -> None:
        self._tokens = TokenVerifier(settings)

    async def admits(self, token: str) -> bool:
        """Raises `AdmissionUnknown` while a provider can't be asked."""
        try:
            await self._tokens.person_of(token)
        except TokenRefused:
            return False
        except ProviderUnreachable as error:
            raise AdmissionUnknown(str(error)) from None
        return True
