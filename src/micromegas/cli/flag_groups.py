"""Options that go together are the fields of a dataclass, written once: a command has one parameter for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

import typer


def command(app: typer.Typer, name: str | None = None, panel: str | None = None) -> Callable[..., Any]:
    """Makes a function a command of `app`. Each of its parameters that is a dataclass stands for the options that are
    its annotated fields, at its place among the others."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, rich_help_panel=panel)(_flattened(function))
        return function

    return register


def _flattened(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer takes it: a parameter per option."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, tuple[Any, list[str]]] = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            options = list(_options(hint))
            groups[parameter.name] = (hint, [option.name for option in options])
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    def flattened(**values: Any) -> None:
        for parameter, (group, names) in groups.items():
            values[parameter] = group(**{name: values.pop(name) for name in names})
        function(**values)

    flattened.__name__ = function.__name__
    flattened.__doc__ = function.__doc__
    flattened.__annotations__ = {}
    # typer reads this, as `inspect.signature` does
    vars(flattened)["__signature__"] = inspect.Signature(parameters)
    return flattened


def _options(group: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass that are options; others keep their defaults."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=_default(each), annotation=hints[each.name]
        )
        for each in fields(group)
        if hasattr(hints[each.name], "__metadata__")
    ]


def _default(each: Field[Any]) -> Any:
    return inspect.Parameter.empty if each.default is MISSING else each.default
