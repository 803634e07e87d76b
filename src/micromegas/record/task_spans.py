"""An async span for every task of an event loop. Must never change what a task is, returns or raises."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from micromegas import _core


def trace_tasks(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Record an async span for each task that is created from now on in a loop (the running one, unless given).

    The span is called like the task's coroutine, begins when the task is created and ends when it is done; its parent
    is the async span in which it was created, and spans inside the task have it as theirs. A task factory that the loop
    has already is kept and used. Called again for the same loop it does nothing.

    Errors: RuntimeError when no loop is given and none is running.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    inner: Any = loop.get_task_factory()
    if not isinstance(inner, _TracingFactory):
        factory: Any = _TracingFactory(inner)  # the declared type of factories changes between versions
        loop.set_task_factory(factory)


class _TracingFactory:
    def __init__(self, inner: Callable[..., "asyncio.Future[Any]"] | None) -> None:
        self.inner = inner

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> "asyncio.Future[Any]":
        opened = _span_of(coroutine).open_async()
        try:
            if options.get("context") is not None:
                # A context that is given, not copied: the span must be current in there.
                opened.suspend()
                options["context"].run(opened.resume)
            if self.inner is None:
                task: asyncio.Future[Any] = asyncio.Task(coroutine, loop=loop, **options)
            else:
                task = self.inner(loop, coroutine, **options)
        except BaseException:
            opened.close()
            raise
        opened.suspend()  # here, where the task was created, the outer one is current again
        if task.done():
            opened.close()
        else:
            task.add_done_callback(lambda _: opened.close())
        return task


def _span_of(coroutine: Any) -> "_core.Span":
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    name = getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
    frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    target = str(frame.f_globals.get("__name__", "")) if frame else ""
    file, line = (code.co_filename, code.co_firstlineno) if code else ("", 0)
    return _core.make_span(
        str(name), target.encode("utf-8", "backslashreplace"), file.encode("utf-8", "backslashreplace"), line
    )
