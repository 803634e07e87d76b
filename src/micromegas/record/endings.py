"""Ends by signals: what was recorded is sent before SIGTERM or a crash ends the process, as it would have without us.

The work is done by `csrc/last_words.c`, so that it happens whatever the program is doing.
"""

import signal
import threading
from types import FrameType

from micromegas import _core


def catch_signals() -> None:
    """SIGTERM where it has its default effect, and the signals of crashes, whoever handles them after us."""
    _core.catch_fatal_signals()
    # The interpreter shall name a handler of ours: who replaces it for a while (uvicorn …) then puts ours back.
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    named = is_default and threading.current_thread() is threading.main_thread()
    if named:
        signal.signal(signal.SIGTERM, _die_by)
    _core.catch_termination(signal.SIGTERM, replace_handler=named)


def leave_signals() -> None:
    """Gives back what is still ours."""
    _core.leave_fatal_signals()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _die_by:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _die_by(number: int, _: FrameType | None) -> None:
    _core.die_by(number)
