"""What a log event tells about an exception: its traceback as text, its type, its message.

Must never raise for what the exception does, and never make more text than `MAX_CHARACTERS`.
"""

import sys
from types import CodeType, FrameType, TracebackType

from micromegas import _core

MAX_CHARACTERS = 64 * 1024
MAX_FRAMES = 200
"""Of each traceback in a chain: the innermost ones are kept."""
MAX_REPEATS = 3
"""Of the same line one after the other, as the interpreter prints them."""
MAX_KNOWN_FRAMES = 4096

_known_frames: dict[tuple[int, int, int], tuple[CodeType, str]] = {}
"""What is printed of a place, by the id of its code, the offset (-1 in made up tracebacks) and the line; the code is
kept, so that ids stay its own."""


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
        frames = _frames_text(error)
        if frames is not None:
            last = traceback.TracebackException(type(error), error, None, compact=True).format_exception_only()
            return f"Traceback (most recent call last):\n{frames}{''.join(last)}".rstrip("\n")
        lines = traceback.TracebackException(type(error), error, error.__traceback__, limit=-MAX_FRAMES, compact=True)
        return "".join(lines.format()).rstrip("\n")
    except Exception as failure:
        return f"{type_name(error)}: {_core.text_of(error)} [no traceback: {type(failure).__name__}]"


def _frames_text(error: BaseException) -> str | None:
    """The frames of an exception that stands alone and is printed without a guess of what was meant, each taken from
    those that were printed before. None: of others, and where lines are left out."""
    is_alone = error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    if not is_alone or isinstance(error, (BaseExceptionGroup, NameError, AttributeError, ImportError, SyntaxError)):
        return None
    texts: list[str] = []
    last_line, repeats = None, 0
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        line = (code.co_filename, entry.tb_lineno, code.co_name)
        repeats = repeats + 1 if line == last_line else 1
        last_line = line
        if repeats > MAX_REPEATS or len(texts) == MAX_FRAMES:
            return None
        known = _known_frames.get((id(code), entry.tb_lasti, entry.tb_lineno))
        texts.append(known[1] if known else _frame_text(entry))
        entry = entry.tb_next
    return "".join(texts) or None


def _frame_text(entry: TracebackType) -> str:
    import traceback

    text = "".join(traceback.extract_tb(entry, limit=1).format())
    code = entry.tb_frame.f_code
    if len(_known_frames) >= MAX_KNOWN_FRAMES:
        _known_frames.clear()
    _known_frames[id(code), entry.tb_lasti, entry.tb_lineno] = code, text
    return text


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
