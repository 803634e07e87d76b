"""Who logs in to the gateway: the holder of an API key, whose name is the user and whose key is the password (never
seen, by SCRAM), or a person, whose password is the token of an identity provider (seen, so over TLS only)."""

from __future__ import annotations

import asyncio
import struct

from micromegas.config import PostgresSettings
from micromegas.serve.id_tokens import MAX_TOKEN
from micromegas.serve.postgres import messages, scram
from micromegas.serve.postgres.endpoint import endpoint_of
from micromegas.serve.postgres.errors import PostgresError, protocol_violation
from micromegas.serve.postgres.messages import Body
from micromegas.serve.sign_in import Identity, SignIn, SignInError
from micromegas.serve.tls import Pair

_MAX_SASL_MESSAGE = 10_000
_SASL, _SASL_CONTINUES, _SASL_ENDS = (struct.pack("!i", code) for code in (10, 11, 12))
_CLEAR_PASSWORD = messages.message(b"R", struct.pack("!i", 3))


class Logins:
    """`await identity(…)` asks a client who it is, and answers it that it is let in."""

    def __init__(self, settings: PostgresSettings) -> None:
        self.keys = scram.ScramKeys(settings.api_keys)
        self._takes_tokens = settings.oidc is not None
        self.sign_in = SignIn(settings)

    async def identity(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, shown: Pair | None
    ) -> Identity:
        """`shown`: the certificate of the connection, None without TLS. `PostgresError` for whoever may not."""
        if not self.sign_in.is_asked_for:
            found = Identity()
        elif self._takes_tokens and not self.keys.has(user):
            found = await self._person(reader, writer, user, shown)
        else:
            found = await self._key_holder(reader, writer, user, shown)
        writer.write(messages.AUTHENTICATION_OK)
        return found

    async def _key_holder(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, shown: Pair | None
    ) -> Identity:
        exchange = scram.ScramExchange(self.keys, user, None if shown is None else endpoint_of(shown.leaf))
        offered = b"".join(map(messages.text, exchange.mechanisms))
        writer.write(messages.message(b"R", _SASL, offered, b"\0"))
        body = await _said(reader, _MAX_SASL_MESSAGE)
        first = exchange.first(body.text(), messages.decoded(body.take(max(0, body.int32()))))
        writer.write(messages.message(b"R", _SASL_CONTINUES, first.encode()))
        final = exchange.final(messages.decoded((await _said(reader, _MAX_SASL_MESSAGE)).rest()))
        writer.write(messages.message(b"R", _SASL_ENDS, final.encode()))
        return Identity(user)

    async def _person(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, shown: Pair | None
    ) -> Identity:
        if shown is None:
            raise PostgresError("28000", "who is no key's name presents a token, which needs TLS", severity="FATAL")
        writer.write(_CLEAR_PASSWORD)
        token = (await _said(reader, MAX_TOKEN + 1)).text()
        try:
            found = await self.sign_in.person(token)
        except SignInError as error:
            state = "57P03" if error.kind == "unavailable" else "28P01"
            raise PostgresError(state, error.message, severity="FATAL") from None
        if user not in found.names:
            raise PostgresError("28000", "the token is not of the user who logs in", severity="FATAL")
        return found


async def _said(reader: asyncio.StreamReader, limit: int) -> Body:
    """The next message of a client, which must be an answer."""
    kind = await reader.readexactly(1)
    length = int.from_bytes(await reader.readexactly(4), "big") - 4
    if kind != b"p" or not 0 <= length <= limit:
        error = protocol_violation("expected an answer to the request for authentication")
        error.severity = "FATAL"
        raise error
    return Body(await reader.readexactly(length))
