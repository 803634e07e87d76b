"""The `@log_calls` decorator. Must never change what a function takes, returns or raises."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from micromegas import _core
from micromegas.record.levels import LEVELS
from micromegas.record.tracing import wrapper_of_suspending

P = ParamSpec("P")
R = TypeVar("R")


@overload
def log_calls(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def log_calls(*, level: str = "trace") -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def log_calls(function: Callable[P, R] | None = None, /, *, level: str = "trace") -> Any:
    """Log every call of a function before it runs: `@log_calls` or `@log_calls(level="debug")`.

    The message is the function's `__qualname__`, the target its module, the place its definition. Arguments are not
    logged: they hold secrets too often. Coroutine functions and generators stay such, and are logged when they begin
    to run, at their first step.

    Errors: ValueError for a level that does not exist.
    """
    if level not in LEVELS or level == "off":
        raise ValueError(f"log level {level!r}: not one of {', '.join(LEVELS)}")
    if function is None:
        return functools.partial(_logged, number=LEVELS[level])
    return _logged(function, LEVELS[level])


def _logged(function: Any, number: int) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_logged(function.__func__, number))
    code = getattr(function, "__code__", None)
    target, name = str(function.__module__), str(function.__qualname__)
    file, line = (code.co_filename, code.co_firstlineno) if code is not None else ("", 0)

    def log() -> None:
        _core.record_log(number, target, file, line, name, (), None, None)

    if (wrap := wrapper_of_suspending(function)) is not None:
        return functools.update_wrapper(wrap(function, _LoggedCalls(log)), function)

    @functools.wraps(function)
    def logged(*args: Any, **kwargs: Any) -> Any:
        log()
        return function(*args, **kwargs)

    return logged


class _LoggedCalls:
    """In the place of the span of calls that may rest: logs where one begins."""

    def __init__(self, log: Callable[[], None]) -> None:
        self._log = log

    def open_async(self) -> "_LoggedCalls":
        self._log()
        return self

    def _nothing(self) -> None:
        """To be told at the other steps."""

    suspend = resume = close = _nothing
