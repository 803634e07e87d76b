"""Errors on their way to a Flight SQL client: a gRPC status and one clean text."""

from __future__ import annotations

from micromegas.query.errors import QueryError
from micromegas.serve.grpc import CallError, StatusName

_STATUS_OF_KIND: dict[str, StatusName] = {
    "invalid": "INVALID_ARGUMENT",
    "unimplemented": "UNIMPLEMENTED",
    "exhausted": "RESOURCE_EXHAUSTED",
    "internal": "INTERNAL",
}


class FlightError(CallError):
    """What a caller did, or what the engine says, as the end of a call."""


def invalid(message: str) -> FlightError:
    return FlightError("INVALID_ARGUMENT", message)


def unimplemented(message: str) -> FlightError:
    return FlightError("UNIMPLEMENTED", message)


def from_query_error(error: QueryError) -> FlightError:
    return FlightError(_STATUS_OF_KIND[error.kind], error.message)
