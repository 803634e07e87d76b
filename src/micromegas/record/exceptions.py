"""What a log event tells about an exception: its traceback as text, its type, its message.

Must never raise for what the exception does, and never make more text than `MAX_CHARACTERS`.
"""

import sys
from types import FrameType

from micromegas import _core

MAX_CHARACTERS = 64 * 1024
MAX_FRAMES = 200
"""Of each traceback in a chain: the innermost ones are kept."""


def describe(given: object, with_stack: bool = False) -> tuple[str, str | None, str | None] | None:
    """Text, qualified type name and message of an exception; None when there is none and no stack is asked for.

    `given` is an exception, what `sys.exc_info()` gives, or anything true for the exception that is being handled. The
    text is as the interpreter prints it, with causes, contexts, notes and groups; where it is very long, its middle is
    cut. `with_stack` adds the stack of the caller.
    """
    error = _error_of(given)
    stack = _stack_text(sys._getframe(1)) if with_stack else None
    if error is None:
        return None if stack is None else (stack, None, None)
    text = _bounded(_traceback_text(error))
    return text if stack is None else f"{text}\n{stack}", type_name(error), _core.text_of(error)


def type_name(error: BaseException) -> str:
    """`KeyError`, `package.module.Error`."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name.removeprefix("builtins.")


def _error_of(given: object) -> BaseException | None:
    if isinstance(given, tuple):
        given = given[1] if len(given) == 3 else None
        return given if isinstance(given, BaseException) else None
    if isinstance(given, BaseException):
        return given
    return sys.exc_info()[1] if given else None


def _traceback_text(error: BaseException) -> str:
    import traceback  # here: `import micromegas` shall be quick

    try:
        lines = traceback.TracebackException(type(error), error, error.__traceback__, limit=-MAX_FRAMES, compact=True)
        return "".join(lines.format()).rstrip("\n")
    except Exception as failure:
        return f"{type_name(error)}: {_core.text_of(error)} [no traceback: {type(failure).__name__}]"


def _stack_text(frame: FrameType) -> str:
    import traceback

    try:
        lines = traceback.format_stack(frame, limit=MAX_FRAMES)
    except Exception as failure:
        return f"[no stack: {type(failure).__name__}]"
    return _bounded("Stack (most recent call last):\n" + "".join(lines).rstrip("\n"))


def _bounded(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    begin = MAX_CHARACTERS // 4
    end = MAX_CHARACTERS - begin
    return f"{text[:begin]}\n… [cut: {len(text)} characters]\n{text[-end:]}"
