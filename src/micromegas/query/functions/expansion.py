"""Calls that only text knows: our aggregates and the functions in FROM over values, replaced before planning."""

from __future__ import annotations

from micromegas.query.functions.aggregates import AGGREGATES
from micromegas.query.functions.statement import Replacement, Statement
from micromegas.query.functions.value_tables import VALUE_TABLES

_AGGREGATES = {each.name: Replacement(each.signature, len(each.arguments), each.sql) for each in AGGREGATES}
_OF_ONE_GROUP = {
    each.name: Replacement(each.signature, len(each.arguments), each.sql_of_one_group) for each in AGGREGATES
}
_TABLES = {each.name: Replacement(each.signature, 1, each.sql) for each in VALUE_TABLES}
_NAMES = frozenset([*_AGGREGATES, *_TABLES])


def expanded(sql: str) -> str:
    """The statement with the calls of our aggregate and table functions replaced by what the engine can run.

    A statement without such calls is returned as it is. Raises `QueryError` for a wrong number of arguments, for
    DISTINCT and for calls nested deeper than any use of them.
    """
    lowered = sql.lower()
    if not any(name in lowered for name in _NAMES):
        return sql
    statement = Statement(sql)
    replacements = {}
    for index, name in statement.calls(_NAMES):
        if name in _AGGREGATES:
            replacements[index] = (_OF_ONE_GROUP if statement.is_over_one_group(index) else _AGGREGATES)[name]
        elif statement.is_table(index):
            replacements[index] = _TABLES[name]
    return statement.replaced(replacements)
