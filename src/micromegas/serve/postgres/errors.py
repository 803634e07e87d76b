"""Errors on their way to a PostgreSQL client: an SQLSTATE and one clean text. Never a traceback."""

from __future__ import annotations

import re
from typing import Literal

from micromegas.query.errors import QueryError

Severity = Literal["ERROR", "FATAL"]

_STATE_OF_KIND = {"invalid": "42000", "unimplemented": "0A000", "exhausted": "53000", "internal": "XX000"}

# What the engine says of some mistakes, and the states by which clients tell them apart.
_STATES = (
    (re.compile(r"took longer than|due to statement timeout"), "57014"),
    (re.compile(r"more than \d+ (?:rows|files)"), "54000"),
    (re.compile(r"needs more memory"), "53200"),
    (re.compile(r"ParserError|SQL error"), "42601"),
    (re.compile(r"table '.*' not found|unknown table", re.IGNORECASE), "42P01"),
    (re.compile(r"No field named|column .* not found", re.IGNORECASE), "42703"),
    (re.compile(r"Ambiguous reference"), "42702"),
    (re.compile(r"Invalid function|No function matches|does not support|Failed to coerce arguments"), "42883"),
    (re.compile(r"must be in (?:the )?GROUP BY|in GROUP BY clause|not in group by", re.IGNORECASE), "42803"),
    (re.compile(r"[Dd]ivide by zero"), "22012"),
    (re.compile(r"Error parsing timestamp|Error parsing date|error parsing '.*' as", re.IGNORECASE), "22007"),
    (re.compile(r"Can't cast value -?\d"), "22003"),
    (re.compile(r"Cannot cast|Can't cast|Cast error"), "22P02"),
    (re.compile(r"[Oo]verflow"), "22003"),
    (re.compile(r"Cannot infer common argument type|Cannot coerce|type_coercion"), "42804"),
    (re.compile(r"Placeholder .* was not provided|No value found for placeholder"), "08P01"),
)


class PostgresError(Exception):
    """An error of SQLSTATE `state`; a FATAL one ends the session."""

    def __init__(self, state: str, message: str, *, hint: str | None = None, severity: Severity = "ERROR") -> None:
        super().__init__(message)
        self.state = state
        self.message = message
        self.hint = hint
        self.severity: Severity = severity

    def encoded(self) -> bytes:
        """The ErrorResponse."""
        fields = [("S", self.severity), ("V", self.severity), ("C", self.state), ("M", self.message)]
        if self.hint is not None:
            fields.append(("H", self.hint))
        return _response(b"E", fields)


class RelayedError(PostgresError):
    """An error of the private PostgreSQL, sent on as it came."""

    def __init__(self, body: bytes) -> None:
        fields = dict(_fields(body))
        super().__init__(fields.get("C", "XX000"), fields.get("M", "the catalogue failed"))
        self._body = body
        if fields.get("V") in ("FATAL", "PANIC"):
            self.severity = "FATAL"

    def encoded(self) -> bytes:
        return b"E" + (len(self._body) + 4).to_bytes(4, "big") + self._body


def protocol_violation(message: str) -> PostgresError:
    return PostgresError("08P01", message)


def not_offered(message: str, hint: str | None = None) -> PostgresError:
    return PostgresError("0A000", message, hint=hint)


def from_query_error(error: QueryError) -> PostgresError:
    for pattern, state in _STATES:
        if error.kind != "internal" and pattern.search(error.message):
            return PostgresError(state, error.message)
    return PostgresError(_STATE_OF_KIND[error.kind], error.message)


def notice(message: str) -> bytes:
    return _response(b"N", [("S", "NOTICE"), ("V", "NOTICE"), ("C", "00000"), ("M", message)])


def warning(state: str, message: str) -> bytes:
    return _response(b"N", [("S", "WARNING"), ("V", "WARNING"), ("C", state), ("M", message)])


def _response(kind: bytes, fields: list[tuple[str, str]]) -> bytes:
    body = b"".join(
        letter.encode() + value.replace("\0", "").encode("utf-8", "replace") + b"\0" for letter, value in fields
    )
    return kind + (len(body) + 5).to_bytes(4, "big") + body + b"\0"


def _fields(body: bytes) -> list[tuple[str, str]]:
    parts = [part for part in body.split(b"\0") if part]
    return [(part[:1].decode("ascii", "replace"), part[1:].decode("utf-8", "replace")) for part in parts]
