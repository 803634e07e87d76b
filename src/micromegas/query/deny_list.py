"""Rules of administrators that refuse queries before they are planned: SQL conditions over who asks for what.

A rule must never refuse what removes it, nor what the server asks for itself; one that fails refuses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
from datafusion import DataFrame, RuntimeEnvBuilder, SessionConfig, SessionContext

from micromegas.lake import Lake, LakeError, QueryDenial
from micromegas.query.errors import QueryError, classified
from micromegas.query.fingerprint import fingerprint
from micromegas.query.guard import checked_statement, function_names
from micromegas.query.request import QueryRequest
from micromegas.query.session import READ_ONLY

MAX_RULES = 100
REFRESH_S = 10.0

CONTEXT_SCHEMA = pa.schema(
    [
        pa.field("user_name", pa.utf8(), nullable=False),
        pa.field("client_type", pa.utf8(), nullable=False),
        pa.field("sql", pa.utf8(), nullable=False),
        pa.field("fingerprint", pa.utf8(), nullable=False),
        pa.field("administers", pa.bool_(), nullable=False),
    ]
)
"""What a condition may name. `user_name` is that of the caller's key, or a person's e-mail that their provider vouches
for, else their subject; `client_type` what the client calls itself; both empty when unknown. `fingerprint` is `sql`
with `?` for texts, numbers and parameters, in lower case, single spaces."""

# An administrator who has refused everything, this too, must be able to take it back.
_NEVER_REFUSED = frozenset({"deny_queries", "list_query_denials", "remove_query_denial"})
_MEMORY_BYTES = 16 * 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules as they were read at a time (s, of the monotonic clock)."""

    denials: tuple[QueryDenial, ...]
    read_at: float


class DenyList:
    """The rules of a lake, read again every `refresh_s`. Thread-safe; its methods block."""

    def __init__(self, lake: Lake, refresh_s: float = REFRESH_S) -> None:
        self._lake = lake
        self._refresh_s = refresh_s
        self._rules: _Rules | None = None
        self._noted: dict[str, int] = {}
        self._guard = threading.Lock()
        runtime = RuntimeEnvBuilder().with_greedy_memory_pool(_MEMORY_BYTES)
        self._engine = SessionContext(SessionConfig({"datafusion.sql_parser.dialect": "postgresql"}), runtime)

    def check(self, request: QueryRequest) -> None:
        """Raises `QueryError` when a rule refuses the request."""
        if request.is_internal:
            return
        denials = self._current()
        if not denials or (request.administers and _NEVER_REFUSED.intersection(function_names(request.sql))):
            return
        with self._about(request) as row:
            for denial in denials:
                try:
                    refuses = _answer(self._condition(row, denial.match_expr))
                except QueryError as error:
                    logger.warning("rule %s refuses nothing: %s", denial.rule_id, error.message)
                    continue
                if refuses:
                    self._note(denial.rule_id)
                    raise QueryError(
                        "exhausted", f"queries like this are refused by rule {denial.rule_id}: {denial.reason}"
                    )

    def check_condition(self, condition: str) -> None:
        """Raises `QueryError` when this is no condition that a rule may have."""
        with self._about(QueryRequest("SELECT 1")) as row:
            frame = self._condition(row, condition)
            types = [field.type for field in frame.schema()]
            if types != [pa.bool_()]:
                raise QueryError("invalid", f"a rule is one condition, this gives {', '.join(map(str, types))}")
            _answer(frame)

    def changed(self) -> None:
        """The rules were changed by this server."""
        with self._guard:  # behind who reads the old ones just now, and would keep them
            self._rules = None

    def _current(self) -> tuple[QueryDenial, ...]:
        rules = self._rules
        if rules is not None and time.monotonic() - rules.read_at < self._refresh_s:
            return rules.denials
        with self._guard:
            if self._rules is not rules and self._rules is not None:
                return self._rules.denials
            try:
                denials = tuple(self._lake.metadata.query_denials())
            except LakeError as error:
                # The statement will say it better; and a rule that was there is not dropped for that.
                logger.warning("the rules that refuse queries can't be read: %s", error)
                denials = () if rules is None else rules.denials
            self._rules = _Rules(denials, time.monotonic())
            return denials

    @contextmanager
    def _about(self, request: QueryRequest) -> Iterator[str]:
        """A table of one row that conditions are about; gives its name."""
        values = [request.user, request.client, request.sql, fingerprint(request.sql), request.administers]
        columns = [pa.array([value], field.type) for value, field in zip(values, CONTEXT_SCHEMA, strict=True)]
        name = f"query_{uuid.uuid4().hex}"
        self._engine.from_arrow(pa.Table.from_arrays(columns, schema=CONTEXT_SCHEMA), name)
        try:
            yield name
        finally:
            self._engine.deregister_table(name)

    def _condition(self, row: str, condition: str) -> DataFrame:
        # On lines of their own, for a condition that ends in a comment.
        statement = checked_statement(f"SELECT (\n{condition}\n) FROM {row} AS query")
        try:
            return self._engine.sql_with_options(statement, READ_ONLY)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise classified(error) from None

    def _note(self, rule_id: str) -> None:
        """Remember the hit, at most once per refresh: many may come in a second."""
        now = self._lake.clock()
        with self._guard:
            if now - self._noted.get(rule_id, 0) < self._refresh_s * 1e9:
                return
            self._noted[rule_id] = now
        try:
            self._lake.metadata.note_denied({rule_id: now})
        except LakeError as error:
            logger.warning("when rule %s refused a query is not kept: %s", rule_id, error)


def _answer(frame: DataFrame) -> bool:
    """The answer of a condition; NULL is no. Raises `QueryError`."""
    try:
        rows = [value for batch in frame.collect() for value in batch.column(0).to_pylist()]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise classified(error) from None
    if len(rows) != 1:
        raise QueryError("invalid", f"a rule is one condition, this gives {len(rows)} rows")
    return bool(rows[0])
