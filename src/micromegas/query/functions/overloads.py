"""Functions that take property sets of several types, each of which the engine knows with one type only.

A call that the planner refuses for the type of its argument gets another form. Which call that is, the refusal tells by
the function's name: so the calls are planned under names of their own. A statement that is not refused costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from datafusion import SessionContext

from micromegas.query.errors import QueryError
from micromegas.query.functions.properties import PROPERTY_FUNCTIONS
from micromegas.query.functions.scalar import ScalarFunction
from micromegas.query.functions.statement import Replacement, Statement, Value

_LISTS = r"(?:Large|FixedSize)?List\(|Dictionary\(\w+, (?:Large|FixedSize)?List\("
_BYTES = r"(?:Large)?Binary|Dictionary\(\w+, (?:Large)?Binary"
_TEXTS = r"Dictionary\(\w+, (?:Large)?Utf8"

# By function: what the type of the first argument begins with, and the call in its place. The engine itself takes a
# dictionary of lists for lists.
_FORMS: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "property_get": ((re.compile(_LISTS), "property_get(properties_for_lookups({0}), {1})"),),
    "properties_length": ((re.compile(_LISTS), "properties_length(properties_to_jsonb({0}))"),),
    "properties_to_jsonb": ((re.compile(_BYTES), "arrow_cast({0}, 'Dictionary(Int32, Binary)')"),),
    "properties_to_array": (
        (re.compile(_BYTES), "arrow_cast({0}, 'Binary')"),
        (re.compile(_TEXTS), "arrow_cast({0}, 'Utf8')"),
    ),
}
_REFUSED = re.compile(r"satisfy a call to '(\w+)' function: coercion from (.*?) to the signature", re.DOTALL)
_MARK = re.compile(r"(\w+)_at_(\d+)")


class OverloadedCalls:
    """The calls of such functions in a statement, each in the form that fits as far as it is known."""

    def __init__(self, sql: str, functions: Iterable[ScalarFunction] = PROPERTY_FUNCTIONS) -> None:
        self._statement = Statement(sql)
        self._functions = {each.name: each for each in functions if each.name in _FORMS}
        self._calls = dict(self._statement.calls(frozenset(_FORMS)))
        self._forms: dict[int, str] = {}

    @staticmethod
    def may_mend(refusal: QueryError) -> bool:
        """Whether the planner refused one of the functions for its argument."""
        found = _REFUSED.search(refusal.message)
        return found is not None and found.group(1) in _FORMS

    def register(self, context: SessionContext) -> None:
        """Makes the names known that `marked` gives to the calls."""
        for index, name in self._calls.items():
            replace(self._functions[name], name=f"{name}_at_{index}").register(context)

    def choose(self, refusal: QueryError) -> bool:
        """Another form for the call that was refused; False where there is none."""
        found = _REFUSED.search(refusal.message)
        mark = _MARK.fullmatch(found.group(1)) if found is not None else None
        if found is None or mark is None or int(mark.group(2)) in self._forms:
            return False
        for pattern, form in _FORMS.get(mark.group(1), ()):
            if pattern.match(found.group(2)):
                self._forms[int(mark.group(2))] = form
                return True
        return False

    @property
    def marked(self) -> str:
        """The statement with each call that has no other form under a name of its own."""
        marks = {index: f"{name}_at_{index}" for index, name in self._calls.items()}
        return self._replaced({index: self._forms.get(index, self._plain(mark)) for index, mark in marks.items()})

    @property
    def text(self) -> str:
        """The statement with the forms that were chosen."""
        return self._replaced(self._forms)

    def _plain(self, mark: str) -> str:
        name = mark[: mark.rindex("_at_")]
        places = ", ".join(f"{{{place}}}" for place in range(len(self._functions[name].arguments)))
        return f"{mark}({places})"

    def _replaced(self, forms: dict[int, str]) -> str:
        return self._statement.replaced(
            {index: self._replacement(self._functions[self._calls[index]], form) for index, form in forms.items()}
        )

    @staticmethod
    def _replacement(function: ScalarFunction, form: str) -> Replacement:
        def sql(arguments: Sequence[Value], clauses: str) -> str:
            return form.format(*(argument.sql for argument in arguments)) + clauses

        return Replacement(function.signature, len(function.arguments), sql)
