"""Recording for the length of a block or of a main function."""

import functools
from collections.abc import Callable
from types import TracebackType

from micromegas import _core
from micromegas.record.session import init, shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, ParamSpec, TypeVar, overload

    P = ParamSpec("P")
    R = TypeVar("R")


class Telemetry:
    """`with telemetry(...) as process_id:` records from here to the end of the block, then sends the rest.

    Where recording has begun before, the block is part of that: nothing begins and nothing ends.
    """

    def __init__(self, settings: "dict[str, Any]") -> None:
        self._settings = settings
        self._is_ours = False

    def __enter__(self) -> str:
        running = _core.recorder_status()
        if running is not None:
            return str(running["process_id"])
        self._is_ours = True
        return init(**self._settings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._is_ours = False
            shutdown()


def _with_settings_of(begin: "Callable[P, str]") -> "Callable[P, Telemetry]":
    def telemetry(*_: "P.args", **settings: "P.kwargs") -> Telemetry:
        """Record for the length of a `with` block; takes what `init` takes. At its end the rest is sent, as at exit."""
        return Telemetry(settings)

    return telemetry


telemetry = _with_settings_of(init)


if TYPE_CHECKING:

    @overload
    def main(function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, R]: ...

    @overload
    def main(function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def main(**settings: object) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...


def main(function: "Callable[..., Any] | None" = None, /, **settings: "Any") -> "Any":
    """Record for the length of a main function: `@main`, or `@main(process_name="shop", …)` with settings of `init`.

    A coroutine function becomes a function that runs it with `asyncio.run`. An exception that leaves the function is
    recorded before it goes on its way.
    """
    if function is None:
        return functools.partial(_recorded, settings=settings)
    return _recorded(function, settings)


def _recorded(function: "Callable[..., Any]", settings: "dict[str, Any]") -> "Callable[..., Any]":
    import inspect

    is_async = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def recorded(*args: "Any", **kwargs: "Any") -> "Any":
        with Telemetry(settings):
            if not is_async:
                return function(*args, **kwargs)
            import asyncio

            return asyncio.run(function(*args, **kwargs))

    return recorded
