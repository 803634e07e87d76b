"""The gateway and a PostgreSQL with the same rows, which are told the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField

Answer = tuple[str, list[tuple[bytes | None, ...]]]


class Both:
    """A session with each."""

    def __init__(self, ours: psycopg.Connection[Any], theirs: psycopg.Connection[Any]) -> None:
        self.ours, self.theirs = ours, theirs
        self._ours, self._theirs = ours.pgconn, theirs.pgconn

    def say(self, text: str) -> Answer:
        """What both answer: the tag or the SQLSTATE, and rows. Names of columns are the same as well."""
        ours, theirs = said(self._ours, text), said(self._theirs, text)
        assert ours == theirs, text
        assert self._ours.transaction_status == self._theirs.transaction_status, text
        return ours.told, ours.rows

    def forget(self) -> None:
        """Everything that was said before."""
        for text in ("ROLLBACK", "RESET ALL", "DEALLOCATE ALL", "CLOSE ALL"):
            said(self._ours, text)
            said(self._theirs, text)

    def copied(self, text: str) -> bytes:
        """What COPY gives."""
        contents: list[bytes] = []
        for connection in (self.ours, self.theirs):
            with connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
                contents.append(b"".join(map(bytes, copy)))
        assert contents[0] == contents[1], text
        return contents[0]


@dataclass(frozen=True)
class Said:
    """The tag or the SQLSTATE, names of columns, and rows."""

    told: str
    names: list[bytes | None]
    rows: list[tuple[bytes | None, ...]]


def said(connection: Any, text: str) -> Said:
    result = connection.exec_(text.encode())
    state = result.error_field(DiagnosticField.SQLSTATE)
    told = (state or result.command_status or b"").decode()
    rows = [tuple(result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples)]
    return Said(told, [result.fname(column) for column in range(result.nfields)], rows)


def say_at_once(connection: psycopg.Connection[Any], *texts: str) -> None:
    """With one Sync behind all of them."""
    with connection.pipeline():
        for text in texts:
            connection.execute(text.encode())
