"""Calls that only text knows: our aggregates, the functions in FROM over values, and those without their optional
arguments, and checks of the size of what others make; replaced before planning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from micromegas.query.functions import growth
from micromegas.query.functions.aggregates import AGGREGATES
from micromegas.query.functions.scalar import ScalarFunction
from micromegas.query.functions.statement import Replacement, Statement, Value
from micromegas.query.functions.value_tables import VALUE_TABLES

_AGGREGATES = {each.name: Replacement(each.signature, len(each.arguments), each.sql) for each in AGGREGATES}
_OF_ONE_GROUP = {
    each.name: Replacement(each.signature, len(each.arguments), each.sql_of_one_group) for each in AGGREGATES
}
_TABLES = {each.name: Replacement(each.signature, 1, each.sql) for each in VALUE_TABLES}
_NAMES = frozenset([*_AGGREGATES, *_TABLES, *growth.NAMES])


def expanded(sql: str, scalars: Iterable[ScalarFunction] = ()) -> str:
    """The statement with the calls of our aggregate and table functions replaced by what the engine can run, and the
    optional arguments of `scalars` filled in, and checks put into calls whose results could be huge.

    A statement without such calls is returned as it is. Raises `QueryError` for a wrong number of arguments, for
    DISTINCT and for calls nested deeper than any use of them.
    """
    filled = {each.name: each for each in scalars if each.optional}
    names = _NAMES | filled.keys()
    lowered = sql.lower()
    # those that may be large are common words, too
    if not any(name in lowered for name in names - growth.NAMES) and growth.WORDS.search(lowered) is None:
        return sql
    statement = Statement(sql)
    replacements: dict[int, Replacement] = {}
    for index, name in statement.calls(names):
        if name in _AGGREGATES:
            replacements[index] = (_OF_ONE_GROUP if statement.is_over_one_group(index) else _AGGREGATES)[name]
        elif name in filled:
            given, function = statement.argument_count(index), filled[name]
            if len(function.arguments) - function.optional <= given < len(function.arguments):
                replacements[index] = _with_nulls(function, given)
        elif statement.is_table(index):
            if name in _TABLES:
                replacements[index] = _TABLES[name]
        elif name in growth.NAMES:
            checked = growth.limited(name, statement.argument_texts(index))
            if checked is not None:
                replacements[index] = checked
    return statement.replaced(replacements)


def _with_nulls(function: ScalarFunction, given: int) -> Replacement:
    """What becomes of a call with so many arguments."""

    def sql(values: Sequence[Value], clauses: str) -> str:
        arguments = [value.sql for value in values] + ["NULL"] * (len(function.arguments) - given)
        return f"{function.name}({', '.join(arguments)}){clauses}"

    return Replacement(function.signature, given, sql)
