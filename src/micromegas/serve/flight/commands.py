"""Which command the bytes of a ticket, a descriptor, or an action hold. Decodes only; executes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from micromegas.serve.flight import messages
from micromegas.serve.flight.errors import FlightError, invalid, unimplemented
from micromegas.serve.flight.messages import Message

_SQL_PREFIX = f"{messages.TYPE_URL_PREFIX}{messages.PACKAGE_SQL}."


@dataclass(frozen=True, slots=True)
class Command:
    """A Flight SQL message with its name (`CommandStatementQuery`, …)."""

    name: str
    body: Message


def parse(name: str, body: bytes) -> Message:
    """Flight message `name` out of a request's bytes; a `FlightError` where they are none."""
    try:
        return messages.parse(name, body)
    except DecodeError:
        raise invalid(f"{len(body)} bytes are no {name} message") from None


def unpack(packed: bytes) -> Command:
    """A command inside `google.protobuf.Any`, as descriptors and action bodies carry it."""
    wrapper = parse("Any", packed)
    url = wrapper.type_url
    name = url.removeprefix(_SQL_PREFIX)
    if name == url or not messages.is_sql_message(name):
        if not url:
            raise invalid("the command is no packed flight sql message")
        raise unimplemented(f"command {url[:200]!r} is not known")
    return Command(name, parse(name, wrapper.value))


def unpack_as(name: str, packed: bytes) -> Message:
    """As `unpack`, for callers that accept one message only (the bodies of actions)."""
    command = unpack(packed)
    if command.name != name:
        raise invalid(f"expected a {name}, got a {command.name}")
    return command.body


def unpack_ticket(ticket: bytes) -> Command:
    """The command of a ticket: packed, or a bare `TicketStatementQuery` as some servers hand out.

    A bare ticket also parses as `Any` (both start with a text in field 1), with the statement in the place of the type.
    """
    try:
        return unpack(ticket)
    except FlightError:
        wrapper = parse("Any", ticket)
        if wrapper.value or not wrapper.type_url or wrapper.type_url.startswith(messages.TYPE_URL_PREFIX):
            raise
        return Command(
            "TicketStatementQuery", messages.new("TicketStatementQuery", statement_handle=wrapper.type_url.encode())
        )


def text_of(handle: bytes) -> str:
    """SQL text of a statement handle."""
    try:
        return handle.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("the statement handle is not utf-8 text") from None
