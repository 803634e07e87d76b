"""The `@trace` decorator. Must never change what a function takes, returns or raises."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import CodeType, FunctionType

from micromegas import _core
from micromegas.record.monitoring import tool

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any, ParamSpec, TypeVar, overload

    from micromegas._core import Span

    P = ParamSpec("P")
    R = TypeVar("R")


if TYPE_CHECKING:

    @overload
    def trace(function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def trace(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def trace(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Record a span around every call of a function: `@trace` or `@trace(name="…")`.

    The span is called like the function (`__qualname__`) unless a name is given. Plain functions and methods leave
    spans of their thread. Coroutine functions, generators and async generators leave async spans from their first
    step to their end, with the async span that was current at that first step as their parent.

    From 3.12 on a plain function stays what it is, the interpreter tells of its calls (`sys.monitoring`; a wrapper when
    no tool id is free). Before, and for callables that are no Python functions, the result is a wrapper with the same
    attributes. Class and static methods, properties and cached properties are traced inside.

    Errors: TypeError for what can't be called.
    """
    if function is None:
        return functools.partial(_traced, name=name)
    return _traced(function, name=name)


def _traced(function: Any, name: str | None) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_traced(function.__func__, name))
    if isinstance(function, property):
        fget, fset, fdel = (accessor and _traced(accessor, name) for accessor in _accessors(function))
        return property(fget, fset, fdel, function.__doc__)
    if isinstance(function, functools.cached_property):
        function.func = _traced(function.func, name)
        return function
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"trace: {function!r} is no function, method or property (of a class, trace the methods)")
    wrap = wrapper_of_suspending(function)
    if wrap is None and isinstance(function, FunctionType) and tool.acquire():
        traced = _core.traced_code(function.__code__, _span_of(function, name))
        tool.watch(traced)
        _core.give_code(function, traced)
        return function
    wrap = wrap or _core.make_traced
    span = _span_of(function, name)
    code = getattr(_innermost(function), "__code__", None)
    if isinstance(code, CodeType):
        _core.leave_code_alone(code)
    return functools.update_wrapper(wrap(function, span), function)  # pyright: ignore[reportArgumentType]


def wrapper_of_suspending(function: Any) -> Callable[[Any, Any], Any] | None:
    """How functions are wrapped whose calls may rest, with the span to open at each first step; None for the others."""
    import inspect  # here: `import micromegas` shall be quick

    if inspect.iscoroutinefunction(function):
        return _traced_coroutine
    if inspect.isgeneratorfunction(function):
        return _traced_generator
    if inspect.isasyncgenfunction(function):
        return _traced_async_generator
    return None


def _accessors(function: property) -> tuple[Any, Any, Any]:
    return function.fget, function.fset, function.fdel


def _span_of(function: Any, name: str | None) -> Span:
    code = getattr(_innermost(function), "__code__", None)
    if name is None:
        name = getattr(function, "__qualname__", None) or repr(function)
    target = str(getattr(function, "__module__", "") or "")
    file = code.co_filename if code else ""
    line = code.co_firstlineno if code else 0
    return _core.make_span(
        str(name), target.encode("utf-8", "backslashreplace"), file.encode("utf-8", "backslashreplace"), line
    )


def _innermost(function: Any) -> Any:
    """The function at the bottom of partials and other decorators' wrappers."""
    seen = 0
    while seen < 100:
        inner = getattr(function, "__wrapped__", None) or (
            function.func if isinstance(function, functools.partial) else None
        )
        if inner is None:
            break
        function = inner
        seen += 1
    return function


def _traced_coroutine(function: Callable[..., Awaitable[R]], span: Span) -> Callable[..., Awaitable[R]]:
    async def traced(*args: Any, **kwargs: Any) -> R:
        opened = span.open_async()
        try:
            return await function(*args, **kwargs)
        finally:
            opened.close()

    return traced


def _traced_generator(
    function: Callable[..., Generator[Any, Any, R]], span: Span
) -> Callable[..., Generator[Any, Any, R]]:
    def traced(*args: Any, **kwargs: Any) -> Generator[Any, Any, R]:
        generator = function(*args, **kwargs)
        opened = span.open_async()
        try:
            value = next(generator)
            while True:
                # A generator has no context of its own: while it rests, its span must not be its caller's parent.
                opened.suspend()
                try:
                    sent = yield value
                except GeneratorExit:
                    opened.resume()
                    generator.close()
                    raise
                except BaseException as error:
                    opened.resume()
                    value = generator.throw(error)
                else:
                    opened.resume()
                    value = generator.send(sent)
        except StopIteration as stop:
            result: R = stop.value
            return result
        finally:
            opened.close()

    return traced


def _traced_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], span: Span
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def traced(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        opened = span.open_async()
        try:
            value = await anext(generator)
            while True:
                opened.suspend()
                try:
                    sent = yield value
                except GeneratorExit:
                    opened.resume()
                    await generator.aclose()
                    raise
                except BaseException as error:
                    opened.resume()
                    value = await generator.athrow(error)
                else:
                    opened.resume()
                    value = await generator.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            opened.close()

    return traced
