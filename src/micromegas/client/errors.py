"""What can go wrong for a client, as types. Texts hold what the server said, without the transport's own chatter.

Each type is also the one that `pyarrow.flight` raises for it, so that programs written for that, or for the client of
the original, catch what they did.
"""

from __future__ import annotations

import re

import pyarrow as pa
from pyarrow import flight

# pyarrow wraps the server's text: "Flight returned … error, with message: <text>. gRPC client debug context: …"
_WRAPPED = re.compile(r"with message: (.*?)(?:\. gRPC client debug context: .*|\. Client context: .*|)\Z", re.DOTALL)


class ClientError(Exception):
    """Anything that goes wrong between this client and its server."""


class AddressInvalid(ClientError, pa.ArrowInvalid):  # type: ignore[misc] # pyarrow has no types
    """What was given is no address of a server."""


class ServerUnreachable(ClientError, flight.FlightUnavailableError):  # type: ignore[misc] # pyarrow has no types
    """Nothing answers at the address, or the connection was lost."""


class SignInRefused(ClientError, flight.FlightUnauthenticatedError):  # type: ignore[misc] # pyarrow has no types
    """The server wants an API key, or another one."""


class NotPermitted(ClientError, flight.FlightUnauthorizedError):  # type: ignore[misc] # pyarrow has no types
    """The server knows who asks, and does not allow this to them."""


class QueryFailed(ClientError):
    """The server refused the statement or failed at it; the text is the server's."""


class StatementRefused(QueryFailed, pa.ArrowInvalid):  # type: ignore[misc] # pyarrow has no types
    """The statement, one of its parameters or its time range is wrong, or it met a limit of the server."""


class NotOffered(QueryFailed, pa.ArrowNotImplementedError):  # type: ignore[misc] # pyarrow has no types
    """The server knows what is asked for, and does not do it."""


class ServerFailed(QueryFailed, flight.FlightInternalError):  # type: ignore[misc] # pyarrow has no types
    """The server is at fault; its log tells more."""


class QueryCancelled(QueryFailed, flight.FlightCancelledError):  # type: ignore[misc] # pyarrow has no types
    """The query was ended from this side, or took longer than a deadline."""


def translate(error: Exception, address: str) -> ClientError:
    """One of the types above for an exception of `pyarrow.flight`."""
    text = server_text(error)
    if isinstance(error, flight.FlightUnavailableError):
        return ServerUnreachable(f"no answer from {address}: {text}")
    if isinstance(error, flight.FlightUnauthenticatedError):
        return SignInRefused(text)
    if isinstance(error, flight.FlightUnauthorizedError):
        return NotPermitted(text)
    if isinstance(error, NotImplementedError):
        return NotOffered(text)
    if isinstance(error, flight.FlightCancelledError | flight.FlightTimedOutError | pa.ArrowCancelled):
        return QueryCancelled(text)
    if isinstance(error, pa.ArrowInvalid | ValueError | KeyError):
        return StatementRefused(text)
    return ServerFailed(text)


def server_text(error: Exception) -> str:
    match = _WRAPPED.search(str(error))
    return str(error) if match is None else match[1]


FLIGHT_ERRORS = (pa.ArrowException, flight.FlightError, OSError, ValueError, NotImplementedError, KeyError)
"""What `pyarrow.flight` raises for a status that is not OK: its own types, Arrow's, or Python's."""
