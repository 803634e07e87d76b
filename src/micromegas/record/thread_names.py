"""Names of threads: as `threading` knows them, and as they change.

Must never make a thread known to `threading` that is not.
"""

import threading

from micromegas import _core


def thread_name() -> bytes:
    """Of the running thread; empty where the system knows better: for threads that `threading` did not start."""
    ident = threading.get_ident()
    for thread in threading.enumerate():
        if thread.ident == ident and not (isinstance(thread, threading._DummyThread) and _says_nothing(thread)):
            return _utf8(thread.name)
    return b""


def _says_nothing(thread: threading.Thread) -> bool:
    """The stand-in for a thread that `threading` did not start: it may be of one that has ended and left its ident."""
    return thread.name.startswith("Dummy-") or thread.native_id != threading.get_native_id()


def _utf8(name: str) -> bytes:
    return name.encode("utf-8", "replace")


class _ToldName(property):
    """The attribute `name` of threads, which also tells the recorder."""


def hear_renames() -> None:
    """From now on the recorder knows when a thread gets another name, for which `threading` has no hook."""
    plain = vars(threading.Thread)["name"]
    if type(plain) is not property or plain.fset is None:
        return  # heard already, or another's attribute
    set_name = plain.fset

    def rename(thread: threading.Thread, name: str) -> None:
        set_name(thread, name)
        if thread.native_id is not None:
            _core.rename_thread(thread.native_id, _utf8(thread.name))

    threading.Thread.name = _ToldName(plain.fget, rename, plain.fdel, plain.__doc__)  # type: ignore[assignment]
