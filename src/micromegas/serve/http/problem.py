"""What the HTTP server says instead of rows: a status and one clean text. Never a traceback."""

from __future__ import annotations

from micromegas.query import QueryError

Header = tuple[bytes, bytes]

_STATUS_OF_KIND = {"invalid": 400, "exhausted": 422, "internal": 500, "unimplemented": 501}


class Problem(Exception):
    """A request that ends with `status`; `code` is for programs, `message` for people."""

    def __init__(self, status: int, code: str, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    @classmethod
    def of_query(cls, error: QueryError) -> Problem:
        return cls(_STATUS_OF_KIND[error.kind], error.kind, error.message)


def invalid(message: str) -> Problem:
    return Problem(400, "invalid", message)
