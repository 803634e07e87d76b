"""Limits and address of the PostgreSQL gateway. It must never print an API key."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas.config.answering import MIB, AnsweringSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings(AnsweringSettings):
    """How the PostgreSQL gateway listens and what one session may cost.

    * with API keys a session must log in: the user is the name of a key, the password is the key. With `oidc`, others
      log in by their e-mail or subject, with their token as password, over TLS only.
    * with a certificate TLS is offered; `require_tls` refuses sessions without.
    * `max_message_bytes`: largest message of bound values that a client may send.
    """

    port: int = 5432
    require_tls: bool = False
    max_sessions: int = 200
    login_timeout_s: float = 30.0
    drain_timeout_s: float = 10.0
    max_message_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        AnsweringSettings.__post_init__(self)
        if self.oidc is not None and not self.api_keys and self.tls_certificate is None:
            raise ValueError("the PostgreSQL gateway takes tokens over TLS only: with an issuer, name a certificate")
        if min(self.max_sessions, self.max_message_bytes) < 1 or self.login_timeout_s <= 0:
            raise ValueError("limits of the postgresql gateway must be positive")
        if self.require_tls and self.tls_certificate is None:
            raise ValueError("TLS can't be required without a certificate")
