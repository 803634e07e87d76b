"""Who asked what, and what became of it: one line of JSON in the log for each query, and measures.

Where the server records itself (`micromegas.init()`), both are in its own lake. It must never fail a query.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import micromegas
from micromegas.query import QueryError
from micromegas.query.errors import MAX_MESSAGE

MAX_ERROR = MAX_MESSAGE - 60
"""Characters of an error beside the id of its query."""
MAX_CLAIM = 1000
"""Characters that are kept of what a caller tells of itself in one header."""
MAX_SQL = 10_000
"""Characters of a statement that a line keeps."""

# The name that audits of Micromegas have always had, whatever protocol the query came by.
_log = logging.getLogger("flightsql_query_audit")
_TARGET = "flightsql_query_audit"
_DURATION = micromegas.metric("query_duration_total", "ms", target=_TARGET)
_DURATION_OF_ERRORS = micromegas.metric("query_duration_with_error", "ms", target=_TARGET)
_SETUP = micromegas.metric("query_setup_duration", "ms", target=_TARGET)
_ROWS = micromegas.metric("query_output_rows", "rows", target=_TARGET)
_COMPLETED = micromegas.counter("query_completed_successfully", target=_TARGET)
_FAILED = micromegas.counter("query_failed", target=_TARGET)
_FAILED_BY_CLASS = {
    "user": micromegas.counter("query_failed_user", target=_TARGET),
    "resource": micromegas.counter("query_failed_resource", target=_TARGET),
}

# whose fault an error is, by its kind
_CLASSES = {"invalid": "user", "unimplemented": "user", "exhausted": "resource", "internal": "internal"}

_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d[\w.]*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as they tell. With API keys, `service_account_name` is the name of the key that was presented,
    whose holder may ask for others; without, everybody may claim to be anybody."""

    client_ip: str = "unknown"
    client: str = "unknown"
    agent: str = "unknown"
    entrypoint: str = "unknown"
    session: str | None = None
    notebook: str | None = None
    cell: str | None = None
    user: str = "unknown"
    email: str = "unknown"
    name: str | None = None
    service_account_name: str | None = None


@dataclass(slots=True)
class QueryAudit:
    """One query, from its arrival to its one line. `begin` and `end`: its time range, as in `QueryRequest`."""

    caller: Caller
    sql: str
    begin: int | None = None
    end: int | None = None
    limit: int | None = None
    query_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    rows: int = 0
    bytes_sent: int = 0
    _arrived: float = field(default_factory=time.monotonic)
    _planned: float | None = None

    def planned(self) -> None:
        """The statement is planned and about to give rows."""
        self._planned = time.monotonic()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around all of the query's work: tells of it when it ends, however it does. Its errors name the query."""
        try:
            yield
        except QueryError as error:
            raise self.refused(error) from None
        except (asyncio.CancelledError, GeneratorExit):
            self.abandoned()
            raise
        except BaseException:
            # what it was is for the server's log, which the protocol's boundary writes
            self._failed("internal error", "internal")
            raise
        self.completed()

    def completed(self) -> None:
        """All its rows were given. Of this and the next two, one is called, once, where `told` can't stand around."""
        _COMPLETED.add(1)
        self._tell("ok")

    def abandoned(self) -> None:
        """Nobody wants the rest of its rows."""
        self._tell("incomplete")

    def refused(self, error: QueryError) -> QueryError:
        """It failed; the error as its caller gets it, which names the query."""
        self._failed(error.message, _CLASSES[error.kind])
        return QueryError(error.kind, f"{error.message[:MAX_ERROR]} (query_id={self.query_id})")

    def _failed(self, error: str, error_class: str) -> None:
        _FAILED.add(1)
        if (counter := _FAILED_BY_CLASS.get(error_class)) is not None:
            counter.add(1)
        _DURATION_OF_ERRORS.record(_ms(self._arrived, time.monotonic()))
        self._tell("error", error=error, error_class=error_class)

    def _tell(self, status: str, **more: str) -> None:
        now = time.monotonic()
        total = _ms(self._arrived, now)
        setup = total if self._planned is None else _ms(self._arrived, self._planned)
        _DURATION.record(total)
        _SETUP.record(setup)
        _ROWS.record(self.rows)
        if not _log.isEnabledFor(logging.INFO):
            return
        line: dict[str, Any] = {"query_id": self.query_id}
        line |= {name: value for name, value in asdict(self.caller).items() if value is not None}
        line["service_account"] = self.caller.service_account_name is not None
        line["sql"] = self.sql if len(self.sql) <= MAX_SQL else self.sql[: MAX_SQL - 1] + "…"
        ranged = {"range_begin": self.begin, "range_end": self.end, "limit": self.limit}
        line |= {name: value for name, value in ranged.items() if value is not None}
        line |= {
            "setup_ms": setup,
            "execution_ms": round(total - setup, 3),
            "total_ms": total,
            "status": status,
            **more,
            "output_rows": self.rows,
            "output_bytes": self.bytes_sent,
            "sql_hash": statement_hash(self.sql),
        }
        _log.info("%s", json.dumps(line, ensure_ascii=False))


def statement_hash(sql: str) -> str:
    """The same for statements that differ in their literals and white space only."""
    plain = _SPACE.sub(" ", _LITERAL.sub("?", sql[:MAX_SQL])).strip()
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()[:16]


def caller_of(headers: Iterable[tuple[str, str]], peer: str, service_account: str | None) -> Caller:
    """The caller that a request's headers (in lower case) tell of; the last of a repeated one counts, an empty one is
    absent. `peer` is the address of the connection, `service_account` the name of the key."""
    found = {name: text[:MAX_CLAIM] for name, text in headers if text}

    def claimed(name: str) -> str | None:
        text = found.get(name)
        return None if text is None else unquote_to_bytes(text).decode("utf-8", "replace")

    texts = {part: found[f"x-client-{name}"] for part, name in _CLIENT.items() if f"x-client-{name}" in found}
    texts |= {part: text for part, name in _USER.items() if (text := claimed(f"x-user-{name}")) is not None}
    forwarded = found.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return Caller(
        client_ip=next((each for each in (forwarded, found.get("x-real-ip", "")) if _is_ip(each)), peer),
        service_account_name=service_account,
        **texts,
    )


_CLIENT = {
    "client": "type",
    "agent": "agent",
    "entrypoint": "entrypoint",
    "session": "session",
    "notebook": "notebook",
    "cell": "cell",
}
_USER = {"user": "id", "email": "email", "name": "name"}


def _is_ip(text: str) -> bool:

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ms(begin: float, end: float) -> float:
    return round((end - begin) * 1000, 3)
