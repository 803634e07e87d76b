"""How administrators keep the rules that refuse queries: `deny_queries`, `list_query_denials`, `remove_query_denial`.

A rule must be made once per statement, and never for an EXPLAIN.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from micromegas.lake import Lake, QueryDenial, TooManyDenials
from micromegas.query import QueryError
from micromegas.query.deny_list import MAX_RULES, DenyList
from micromegas.query.functions import Argument, ScalarFunction
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import Parameter, TableFunction
from micromegas.query.tables import Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import TIMESTAMP, optional, required

RULES_SCHEMA = pa.schema(
    [
        required("rule_id", pa.utf8()),
        required("created_at", TIMESTAMP),
        required("created_by", pa.utf8()),
        required("reason", pa.utf8()),
        required("match_expr", pa.utf8()),
        optional("last_hit_at", TIMESTAMP),
    ]
)
MAX_TEXT = 10_000

Rules = Callable[[str], list[QueryDenial]]
"""The rules to be shown to a user; makes one first, perhaps."""


class _RuleRows(QueryTable):
    """Some rules as rows."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.schema = RULES_SCHEMA
        self.filter_columns = FilterColumns()
        self._rules = rules

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        if preparation.explain_only:
            return TableFiles()
        rules = self._rules(preparation.user)
        columns = [pa.array([getattr(rule, field.name) for rule in rules], field.type) for field in RULES_SCHEMA]
        batch = pa.RecordBatch.from_arrays(columns, schema=RULES_SCHEMA)
        return TableFiles(spooled=preparation.spool.write(self.schema, [batch], self.name, preparation.max_list_bytes))


class _DenyQueries(TableFunction):
    name = "deny_queries"
    schemas = (RULES_SCHEMA,)
    for_administrators = True
    parameters = (Parameter("expr"), Parameter("reason"))
    description = (
        "Refuses, from now on, the queries that meet a condition, and gives the rule that does so. The condition is "
        "SQL over `user_name` (of the caller's key; a person's proven e-mail, else subject), `client_type` (what the "
        "client calls itself), `sql`, `fingerprint` (the statement in lower case, `?` for texts, numbers and "
        "parameters, single spaces between tokens) and `administers`. Other servers follow within ten seconds. Queries "
        "that administrators make with these three functions are never refused. For administrators."
    )
    example = (
        "SELECT reason, match_expr FROM deny_queries('client_type = ''grafana'' AND sql LIKE ''%thread_spans%''', "
        "'ask for log_stats instead')"
    )

    def __init__(self, lake: Lake, deny_list: DenyList) -> None:
        self._lake = lake
        self._deny_list = deny_list

    def table(self, expr: str, reason: str, **_: Any) -> QueryTable:
        def make(user: str) -> list[QueryDenial]:
            if max(len(expr), len(reason)) > MAX_TEXT:
                raise QueryError("invalid", f"{self.name}: texts of more than {MAX_TEXT} characters")
            if not reason.strip():
                raise QueryError("invalid", f"{self.name}: tell a reason, for those who are refused")
            self._deny_list.check_condition(expr)
            rule = QueryDenial(str(uuid.uuid4()), self._lake.clock(), user, reason, expr, None)
            try:
                self._lake.metadata.add_query_denial(rule, MAX_RULES)
            except TooManyDenials as many:
                raise QueryError("exhausted", f"{self.name}: {many}") from None
            self._deny_list.changed()
            return [rule]

        return _RuleRows(f"{self.name}|{expr}|{reason}", make)


class _ListQueryDenials(TableFunction):
    name = "list_query_denials"
    schemas = (RULES_SCHEMA,)
    for_administrators = True
    description = (
        "The rules of `deny_queries`, and when each last refused a query (NULL: never; kept within ten seconds). For "
        "administrators."
    )
    example = "SELECT created_by, reason, match_expr FROM list_query_denials() ORDER BY created_at"

    def __init__(self, lake: Lake) -> None:
        self._table = _RuleRows(f"{self.name}|", lambda _user: lake.metadata.query_denials())

    def table(self) -> QueryTable:
        return self._table


def denial_table_functions(lake: Lake, deny_list: DenyList) -> list[TableFunction]:
    """Those that stand in FROM."""
    return [_DenyQueries(lake, deny_list), _ListQueryDenials(lake)]


def remove_query_denial_function(lake: Lake, deny_list: DenyList) -> ScalarFunction:
    """The one that stands in SELECT."""

    def remove(rule_ids: pa.Array) -> pa.Array:
        outcomes = [None if rule_id is None else _removed(lake, rule_id) for rule_id in rule_ids.to_pylist()]
        deny_list.changed()
        return pa.array(outcomes, pa.string())

    return ScalarFunction(
        "remove_query_denial",
        (Argument("rule_id", pa.string()),),
        pa.string(),
        remove,
        "Takes a rule of `deny_queries` away. The result begins with `SUCCESS:` or `ERROR:`. For administrators.",
        "SELECT remove_query_denial('00000000-0000-4000-8000-000000000000') AS outcome",
        volatility="volatile",
    )


def _removed(lake: Lake, rule_id: str) -> str:
    try:
        known = lake.metadata.remove_query_denial(str(uuid.UUID(rule_id)))
    except ValueError:
        known = False
    return f"SUCCESS: removed rule {rule_id}" if known else f"ERROR: no rule {rule_id[:100]}"
