"""Ends by signals: what was recorded is sent before SIGTERM or a crash ends the process, as it would have without us.

The work is done by `csrc/last_words.c`, so that it happens whatever the program is doing.
"""

import signal
import threading
from types import FrameType

from micromegas import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_set_handler = signal.signal


def catch_signals() -> None:
    """SIGTERM whenever it has its default effect, and the signals of crashes, whoever handles them after us."""
    _core.catch_fatal_signals()
    signal.signal = _set_handler_keeping_ours
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default and threading.current_thread() is threading.main_thread():
        _set_ours()
    else:
        _core.catch_termination(signal.SIGTERM, replace_handler=False)


def leave_signals() -> None:
    """Gives back what is still ours."""
    _core.leave_fatal_signals()
    if signal.signal is _set_handler_keeping_ours:
        signal.signal = _set_handler
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _die_by:
        _set_handler(signal.SIGTERM, signal.SIG_DFL)


def _set_ours() -> "Any":
    # The interpreter shall name a handler of ours: who replaces it for a while then puts ours back.
    before = _set_handler(signal.SIGTERM, _die_by)
    _core.catch_termination(signal.SIGTERM, replace_handler=True)
    return before


def _set_handler_keeping_ours(signalnum: "Any", handler: "Any") -> "Any":
    """Set the handler of a signal; see `signal.signal`, whose place this takes while the process is recorded.

    A server that took SIGTERM before recording began (uvicorn, which imports its application later) makes the default
    its effect again and dies by it at once: for SIGTERM the default is ours.
    """
    if signalnum == signal.SIGTERM and handler == signal.SIG_DFL:
        return _set_ours()
    return _set_handler(signalnum, handler)


def _die_by(number: int, _: FrameType | None) -> None:
    _core.die_by(number)
