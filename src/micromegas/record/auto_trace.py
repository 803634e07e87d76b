"""Automatic tracing: a span for every call of every function of the modules that are asked for.

Asks once per code object. Must never trace ourselves.
"""

import os
import sys
import threading
from collections.abc import Iterable

from micromegas import _core
from micromegas.record.monitoring import tool

VARIABLE = "MICROMEGAS_TRACE"
MOST_FUNCTIONS = 32_768
"""Half of the descriptions that a process can have."""

_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


class Choice:
    """Which functions are traced: the longest matching module name decides, then where the file is."""

    def __init__(self, include: Iterable[str] | None, exclude: Iterable[str]) -> None:
        names = None if include is None else [name for name in _names(include) if name != "*"]
        self.everything_ours = names is None or not names
        self.rules = dict.fromkeys(names or (), True) | dict.fromkeys(_names(exclude), False)
        self.functions: set[tuple[str, str]] = set()
        self.has_warned = False

    def __call__(self, module: object, file: str, name: str) -> bool:
        if name.rpartition(".")[2] in _COMPREHENSIONS or file.startswith(_OWN):
            return False
        if not self.includes(str(module), file):
            return False
        self.functions.add((file, name))
        if len(self.functions) > MOST_FUNCTIONS:
            if not self.has_warned:
                self.has_warned = True
                _core.log.warn("automatic tracing: more than %s functions, the others are not traced", MOST_FUNCTIONS)
            self.functions.discard((file, name))
            return False
        return True

    def includes(self, module: str, file: str) -> bool:
        """Whether functions of a module in this file are asked for."""
        if module == "__main__":
            spec = getattr(sys.modules.get("__main__"), "__spec__", None)
            for candidate in ("__main__", getattr(spec, "name", None) or "__main__"):
                rule = self._rule(candidate)
                if rule is not None:
                    return rule
        else:
            rule = self._rule(module)
            if rule is not None:
                return rule
        if file.startswith("<") and not file.startswith("<frozen "):  # made at run time: its module tells whose it is
            file = getattr(sys.modules.get(module), "__file__", None) or ("" if module == "__main__" else "<frozen >")
        return self.everything_ours and is_program_file(file)

    def _rule(self, module: str) -> bool | None:
        while module:
            rule = self.rules.get(module)
            if rule is not None:
                return rule
            module = module.rpartition(".")[0]
        return None


def _names(names: Iterable[str]) -> list[str]:
    return [name.strip() for name in ([names] if isinstance(names, str) else names) if name.strip()]


def is_program_file(file: str) -> bool:
    """Whether code of this file is the program's own: not the standard library's, not installed, not frozen."""
    if file.startswith(("<frozen ", _STANDARD_LIBRARY)):
        return False
    return "site-packages" + os.sep not in file and "dist-packages" + os.sep not in file


_lock = threading.Lock()


def trace_modules(include: Iterable[str] | None = None, exclude: Iterable[str] = ()) -> None:
    """Record a span around every call of every Python function of some modules, in all threads, from now on.

    `include`: names of modules or packages; None (or `"*"`) means the program's own, which is all but the standard
    library and what is installed. `exclude`: names left out. The longest name that matches a module decides. A
    coroutine or generator leaves a span of the thread for each of its steps. Called again, it replaces what was asked
    for before.

    Also by environment: `MICROMEGAS_TRACE=myapp,-myapp.hot`, read by `init()`.

    Errors: RuntimeError when another tool has taken what the interpreter has for this.
    """
    choice = Choice(include, exclude)
    with _lock:
        if sys.version_info >= (3, 12) and not tool.acquire():
            raise RuntimeError(
                "automatic tracing: both free tool ids of sys.monitoring (3 and 4) are taken; free one, then call again"
            )
        _core.auto_trace(choice)
        if sys.version_info >= (3, 12):
            tool.watch_all(True)


def untrace_modules() -> None:
    """Stop automatic tracing. Spans of functions that run now end with the span around them."""
    with _lock:
        _core.auto_trace(None)
        if tool.automatic and tool.acquire():
            tool.watch_all(False)


def trace_as_environment_says(value: str) -> None:
    """Start as `MICROMEGAS_TRACE` says: names, those to leave out with a `-` before them, `*` for the program's own."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    include = [name for name in names if not name.startswith("-")]
    exclude = [name[1:] for name in names if name.startswith("-")]
    trace_modules(include or None, exclude)
