"""The settings of a session that mean something to the lake: the time range of its questions, and their time limit.

They are ordinary settings of PostgreSQL, so that SET, SHOW, RESET, `options=-c …` and `ALTER SERVER … OPTIONS` work as
for any other.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from micromegas.serve.postgres.errors import PostgresError

BEGIN, END = "micromegas.range_begin", "micromegas.range_end"
DEFAULT_LOOKBACK = "micromegas.default_lookback"
_NAMES = (BEGIN, END, DEFAULT_LOOKBACK)
# Filters by now() never leave another PostgreSQL: what it asks for without a time would be everything that there is.
_LOOKBACKS = {"postgres_fdw": "7d"}
_NO_LOOKBACK = frozenset(["", "off", "0"])
# Memory of the catalogue's sessions is the gateway's to give.
_MEMORY = ("work_mem", "hash_mem_multiplier", "temp_buffers")
SETTINGS_QUERY = (
    "SELECT "
    + ", ".join(f"coalesce(pg_catalog.current_setting('{name}', true), '')" for name in _NAMES)
    + ", (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'statement_timeout')"
    + ", (SELECT source FROM pg_catalog.pg_settings WHERE name = 'statement_timeout')"
    + ", (SELECT string_agg(name, ', ') FROM pg_catalog.pg_settings WHERE name IN ("
    + ", ".join(f"'{name}'" for name in _MEMORY)
    + ") AND source IN ('session', 'client', 'user', 'database'))"
)
RESETS = [f"RESET {name}" for name in (*_NAMES, *_MEMORY)]

_RELATIVE = re.compile(r"-\s*(\d{1,9})\s*(s|m|h|d|w)")
_UNIT_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9}


@dataclass(frozen=True, slots=True)
class Moments:
    """Times in ns since the epoch, either open."""

    begin: int | None
    end: int | None
    assumed_begin: int | None


class SessionRange:
    """Times are read when they are set, and relative ones counted from the statement that they are for."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._begin = self._end = self._lookback = ""
        self.statement_timeout_s: float | None = None

    @staticmethod
    def may_change(words: frozenset[str]) -> bool:
        return bool(words & {"micromegas", "statement_timeout", "all", "discard", *_MEMORY}) and "show" not in words

    def read(self, values: list[str]) -> None:
        """The row of `SETTINGS_QUERY`; `PostgresError` for a time that is none."""
        begin, end, lookback, timeout_ms, timeout_source, memory = values
        if memory:
            raise PostgresError("42501", f"permission denied to set {memory}")
        for name, value in ((BEGIN, begin), (END, end)):
            _moment(name, value, 0)
        _assumed(lookback, 0)
        self._begin, self._end, self._lookback = begin, end, lookback
        is_own = timeout_source in ("session", "client", "user", "database")
        self.statement_timeout_s = int(timeout_ms) / 1000 if is_own and int(timeout_ms) > 0 else None

    def now(self) -> Moments:
        now = time.time_ns()
        return Moments(_moment(BEGIN, self._begin, now), _moment(END, self._end, now), _assumed(self.lookback, now))

    @property
    def lookback(self) -> str:
        """How far back statements go that say nothing about time."""
        return self._lookback.strip() or _LOOKBACKS.get(self._application, "off")


def _assumed(lookback: str, now_ns: int) -> int | None:
    if lookback.strip().lower() in _NO_LOOKBACK:
        return None
    relative = _RELATIVE.fullmatch(f"-{lookback.strip().lower()}")
    if relative is None:
        raise PostgresError(
            "22023",
            f'invalid value for parameter "{DEFAULT_LOOKBACK}": "{lookback[:100]}"',
            hint="how far back, as 15m, 6h, 7d, 2w, or off",
        )
    return now_ns - int(relative[1]) * _UNIT_NS[relative[2]]


def _moment(name: str, text: str, now_ns: int) -> int | None:
    text = text.strip()
    if not text:
        return None
    if text.lower() == "now":
        return now_ns
    if relative := _RELATIVE.fullmatch(text.lower()):
        return now_ns - int(relative[1]) * _UNIT_NS[relative[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PostgresError(
            "22023",
            f'invalid value for parameter "{name}": "{text[:100]}"',
            hint="a time as 2026-01-31T12:00:00Z, or one before now as -15m, -6h, -7d",
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
