"""Opens and closes captures. Must leave the recorder as it was found: session, log level, environment."""

import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from micromegas import _core
from micromegas.record import levels, session
from micromegas.testing.events import Events


@dataclass(slots=True)
class _Found:
    """What a capture has to leave behind."""

    levels: tuple[int, Mapping[str, int]]
    parent_variable: str | None


_found: list[_Found] = []
"""One for each open capture, in the order of their beginnings."""
_lock = threading.Lock()


@contextmanager
def capture(*, level: str | None = "trace") -> Generator[Events]:
    """Capture what the process records inside of the `with` block, by all of its threads.

    `level`: the least severe log level recorded meanwhile, None to leave it as it is. The events can be read inside of
    the block (then: what was recorded so far) and after it. Captures may overlap; each holds all that was recorded
    while it was open.

    Works where nothing records: then recording lasts as long as the block, and `micromegas.init()` inside of it is
    allowed and sends nothing. A session that was begun before goes on, and sends what it would have sent.
    Forked children are not captured.

    Errors: ValueError for an unknown level or environment variables that `init()` refuses.
    """
    with _lock:
        found = _Found(levels.log_levels(), os.environ.get(session.PARENT_VARIABLE))
        serial = _core.capture_begin()
        _found.append(found)
    events = Events(lambda: _core.capture_take(serial))
    try:
        with _lock:
            if _core.recorder_status() is None:
                session.init()
                _core.capture_own_session()
        if level is not None:
            levels.set_log_levels(level)
        else:
            levels.restore_log_levels(found.levels)  # which `init()` has set
        yield events
    finally:
        events.close()
        with _lock:
            _core.capture_end(serial)
            _leave(found)


def _leave(found: _Found) -> None:
    position = next(index for index, other in enumerate(_found) if other is found)
    del _found[position]
    if position < len(_found):
        later = _found[position]  # still open: it leaves what was there before both
        later.levels, later.parent_variable = found.levels, found.parent_variable
        return
    levels.restore_log_levels(found.levels)
    if _core.recorder_status() is None:
        # Children shall not be told of a parent that no server knows.
        if found.parent_variable is None:
            os.environ.pop(session.PARENT_VARIABLE, None)
        else:
            os.environ[session.PARENT_VARIABLE] = found.parent_variable
