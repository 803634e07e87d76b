"""What can go wrong for a client, as types. Texts hold what the server said, without the transport's own chatter."""

from __future__ import annotations

import re

import pyarrow as pa
from pyarrow import flight

# pyarrow wraps the server's text: "Flight returned … error, with message: <text>. gRPC client debug context: …"
_WRAPPED = re.compile(r"with message: (.*?)(?:\. gRPC client debug context: .*|\. Client context: .*|)\Z", re.DOTALL)


class ClientError(Exception):
    """Anything that goes wrong between this client and its server."""


class ServerUnreachable(ClientError):
    """Nothing answers at the address, or the connection was lost."""


class SignInRefused(ClientError):
    """The server wants an API key, or another one."""


class QueryFailed(ClientError):
    """The server refused the statement or failed at it; the text is the server's."""


def translate(error: Exception, address: str) -> ClientError:
    """One of the types above for an exception of `pyarrow.flight`."""
    text = server_text(error)
    if isinstance(error, flight.FlightUnavailableError):
        return ServerUnreachable(f"no answer from {address}: {text}")
    if isinstance(error, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
        return SignInRefused(text)
    return QueryFailed(text)


def server_text(error: Exception) -> str:
    match = _WRAPPED.search(str(error))
    return str(error) if match is None else match[1]


FLIGHT_ERRORS = (pa.ArrowException, flight.FlightError, OSError, ValueError, NotImplementedError, KeyError)
"""What `pyarrow.flight` raises for a status that is not OK: its own types, Arrow's, or Python's."""
