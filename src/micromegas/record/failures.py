"""Makes log events of exceptions that nobody caught: in the main thread, in threads, in tasks, in destructors.

Stands before the interpreter's hooks and calls whatever was there: what the program prints stays the same.
"""

import sys
import threading
from collections.abc import Callable
from types import ModuleType, TracebackType

from micromegas import _core
from micromegas.record.after_import import AfterImport
from micromegas.record.exceptions import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Hook:
    """In the place of an attribute that the interpreter calls: records, then lets the one before it have its turn."""

    def __init__(self, owner: "Any", name: str, record: "Callable[..., None]") -> None:
        self._owner = owner
        self._name = name
        self._previous = previous = getattr(owner, name)

        # A function, so that it becomes a method where it takes the place of one.
        def hook(*arguments: "Any") -> "Any":
            try:
                record(*arguments)
            except Exception:  # whatever state the interpreter is in: the program's own report must still be made
                _core.log.error("an exception that nobody caught could not be told")
            return previous(*arguments)

        self._hook = hook
        setattr(owner, name, hook)

    def remove(self) -> None:
        """Puts the one before it back, unless somebody came after us."""
        if getattr(self._owner, self._name) is self._hook:
            setattr(self._owner, self._name, self._previous)


_hooks: list[_Hook] = []
_waiting: list[AfterImport] = []


def catch_failures() -> None:
    """From now on they are recorded."""
    if not _hooks:
        _hooks.append(_Hook(sys, "excepthook", _in_main_thread))
        _hooks.append(_Hook(threading, "excepthook", _in_thread))
        _hooks.append(_Hook(sys, "unraisablehook", _unraisable))
        _waiting.append(AfterImport("asyncio.base_events", _catch_in_loops))


def leave_failures() -> None:
    """From now on they are not."""
    while _waiting:
        _waiting.pop().cancel()
    while _hooks:
        _hooks.pop().remove()


def is_catching() -> bool:
    """Whether they are recorded now."""
    return bool(_hooks)


def _catch_in_loops(base_events: ModuleType) -> None:
    _hooks.append(_Hook(base_events.BaseEventLoop, "call_exception_handler", _in_loop))


def _told(error: BaseException | None, kind: type[BaseException] | None) -> str:
    described = None if error is None else describe(error)
    return described[0] if described is not None else f"{kind.__qualname__ if kind else None} without a value"


def _place_of(trace: TracebackType | None) -> str:
    """The innermost line. Imports nothing: the interpreter forgets an interrupt when `eval` is used after it."""
    if trace is None:
        return "nowhere"
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_filename}, line {trace.tb_lineno}, in {code.co_qualname}"


def record_failure(where: str, error: BaseException) -> None:
    """A fatal log event with the traceback: the process, or its work, ends by this exception."""
    if isinstance(error, KeyboardInterrupt):
        _core.log.warn("interrupted in %s, %s", where, _place_of(error.__traceback__))
    elif not isinstance(error, SystemExit | GeneratorExit):
        _core.log.fatal("unhandled exception in %s\n%s", where, _told(error, type(error)))


def _in_main_thread(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    record_failure("the main thread", error)
    _core.recorder_flush(0.0)


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit:
        name = failure.thread.name if failure.thread is not None else "that has ended"
        text = _told(failure.exc_value, failure.exc_type)
        _core.log.error("unhandled exception in thread %s\n%s", name, text)
        _core.recorder_flush(0.0)


def _unraisable(failure: "sys.UnraisableHookArgs") -> None:
    where = failure.err_msg or "Exception ignored in"
    text = _told(failure.exc_value, failure.exc_type)
    _core.log.error("%s: %r\n%s", where, failure.object, text)


def _in_loop(_: object, context: "dict[str, Any]") -> None:
    message = context.get("message") or "unhandled exception in event loop"
    error = context.get("exception")
    task: Any = context.get("task") or context.get("future")
    name = task.get_name() if hasattr(task, "get_name") else "none"
    if error is None:
        _core.log.error("%s (task: %s)", message, name)
    else:
        _core.log.error("%s (task: %s)\n%s", message, name, _told(error, type(error)))
    _core.recorder_flush(0.0)
