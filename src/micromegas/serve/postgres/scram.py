"""SCRAM-SHA-256 (RFC 5802, RFC 7677) on the server's side, with API keys as passwords and their names as users; over
TLS also bound to the server's certificate (RFC 5929, `tls-server-end-point`). Keeps no password; an unknown user can't
be told from a wrong password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from micromegas.config import ApiKey
from micromegas.serve.postgres.errors import PostgresError, protocol_violation

MECHANISM, BOUND_MECHANISM = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
_BINDING = "tls-server-end-point"
_ITERATIONS = 4096
# the digest of nothing that anybody knows
_NOBODYS = b"\0" * 32


@dataclass(frozen=True, slots=True)
class _Verifier:
    salt: bytes
    keys: tuple[tuple[bytes, bytes], ...]
    """Stored key and server key of each of the passwords, of which a name may have more than one."""


class ScramKeys:
    """What is kept of the accepted keys."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._secret = secrets.token_bytes(32)
        passwords: dict[str, list[str]] = {}
        for key in keys:
            passwords.setdefault(key.name, []).append(key.key)
        self._verifiers = {name: _verifier(each) for name, each in passwords.items()}

    def __bool__(self) -> bool:
        return bool(self._verifiers)

    def has(self, user: str) -> bool:
        """Whether a key has this name."""
        return user in self._verifiers

    def verifier(self, user: str) -> _Verifier:
        """Of an unknown user one that nobody's password fits, the same each time."""
        known = self._verifiers.get(user)
        if known is not None:
            return known
        salt = hmac.digest(self._secret, user.encode("utf-8", "replace"), "sha256")[:16]
        return _Verifier(salt, ())


class ScramExchange:
    """One login: `first` answers the client's first message, `final` its second.

    `endpoint`: what TLS knows the server by (`micromegas.serve.postgres.endpoint`); None where nothing can be bound."""

    def __init__(self, keys: ScramKeys, user: str, endpoint: bytes | None) -> None:
        self._user = user
        self._endpoint = endpoint
        self._verifier = keys.verifier(user)
        self._nonce = ""
        self._transcript = ""
        self._bound = b""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What is offered, the better one first."""
        return (MECHANISM,) if self._endpoint is None else (BOUND_MECHANISM, MECHANISM)

    def first(self, mechanism: str, message: str) -> str:
        """`PostgresError` for a mechanism that was not offered, too."""
        if mechanism not in self.mechanisms:
            raise _refused("client selected an invalid SASL authentication mechanism")
        flag, _, rest = message.partition(",")
        authorization, _, bare = rest.partition(",")
        self._bound = f"{flag},{authorization},".encode() + self._binding(flag, mechanism)
        fields = _fields(bare)
        if "r" not in fields or "n" not in fields or "m" in fields:
            raise _malformed()
        self._nonce = fields["r"] + secrets.token_urlsafe(18)
        answer = f"r={self._nonce},s={_encoded(self._verifier.salt)},i={_ITERATIONS}"
        self._transcript = f"{bare},{answer}"
        return answer

    def _binding(self, flag: str, mechanism: str) -> bytes:
        """What the client has to prove that it sees of the connection."""
        if mechanism == BOUND_MECHANISM:
            if flag != f"p={_BINDING}" or self._endpoint is None:
                raise _refused(f"{BOUND_MECHANISM} is offered with {_BINDING} only")
            return self._endpoint
        if flag == "y" and self._endpoint is not None:
            # the client could bind, and believes that we can't: somebody between us has changed what was offered
            raise PostgresError(
                "28000",
                "the client believes that channel binding is not offered, but it is",
                hint="something between client and server changes what they say",
                severity="FATAL",
            )
        if flag not in ("n", "y"):
            raise _malformed()
        return b""

    def final(self, message: str) -> str:
        without_proof, _, proof_text = message.rpartition(",p=")
        fields = _fields(without_proof)
        proof = _decoded(proof_text)
        if fields.get("r") != self._nonce or _decoded(fields.get("c", "")) != self._bound or len(proof) != 32:
            raise _malformed()
        signed = f"{self._transcript},{without_proof}".encode()
        for stored_key, server_key in self._verifier.keys or ((_NOBODYS, _NOBODYS),):
            signature = hmac.digest(stored_key, signed, "sha256")
            client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
            if hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key):
                return f"v={_encoded(hmac.digest(server_key, signed, 'sha256'))}"
        raise PostgresError(
            "28P01",
            f'password authentication failed for user "{self._user}"',
            hint="the user is the name of an API key, the password is the key",
            severity="FATAL",
        )


def _verifier(passwords: Iterable[str]) -> _Verifier:
    salt = secrets.token_bytes(16)
    return _Verifier(salt, tuple(_keys_of(password, salt) for password in passwords))


def _keys_of(password: str, salt: bytes) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")


def _fields(message: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in message.split(",") if part[1:2] == "="}


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed() from None


def _malformed() -> PostgresError:
    return _refused("malformed SCRAM message")


def _refused(message: str) -> PostgresError:
    error = protocol_violation(message)
    error.severity = "FATAL"
    return error
