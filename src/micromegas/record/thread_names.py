"""Names of threads: as `threading` knows them, and as they change.

Must never make a thread known to `threading` that is not.
"""

import threading

from micromegas import _core


def thread_name() -> bytes:
    """Of the running thread; empty where the system knows better: for threads that `threading` did not start."""
    ident, native_id = threading.get_ident(), threading.get_native_id()
    threads = threading.enumerate()
    for thread in threads:
        if thread.ident == ident and not (isinstance(thread, threading._DummyThread) and _says_nothing(thread)):
            return _utf8(thread.name)
    for thread in threads:
        # What replaces the idents of `threading` by those of its greenlets (gevent, eventlet) leaves this one alone.
        if thread.native_id == native_id and not isinstance(thread, threading._DummyThread):
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
    # `threading.Thread` may be a class of somebody's who lets threads be greenlets, with the true one among its bases.
    owner = next(kind for kind in threading.Thread.__mro__ if "name" in vars(kind))
    plain = vars(owner)["name"]
    if type(plain) is not property or plain.fset is None:
        return  # heard already, or another's attribute
    set_name = plain.fset

    def rename(thread: threading.Thread, name: str) -> None:
        set_name(thread, name)
        if thread.native_id is not None:
            _core.rename_thread(thread.native_id, _utf8(thread.name))

    owner.name = _ToldName(plain.fget, rename, plain.fdel, plain.__doc__)  # type: ignore[attr-defined]
