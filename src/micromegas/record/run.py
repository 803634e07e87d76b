"""`python -m micromegas run app.py` or `-m package`: runs a program as Python would, recorded from its first line.

The program sees its own `sys.argv`, `sys.path[0]` and `__main__`; its exit code and what it prints are its own.
"""

import argparse
import importlib.machinery
import importlib.util
import io
import os
import sys
from types import CodeType, ModuleType, TracebackType

from micromegas.record import auto_trace, autostart
from micromegas.record.session import begin_automatically


def run(arguments: list[str]) -> None:
    """Record and run what the arguments say. Returns, exits or raises as the program does."""
    options = _options(arguments)
    program, *rest = options.program
    try:
        main, code = _module(program) if options.is_module else _script(program)
    except _NotFoundError as error:
        print(f"{sys.executable}: {error}", file=sys.stderr)
        sys.exit(2 if not options.is_module else 1)
    sys.argv[:] = [str(main.__file__) if options.is_module else program, *rest]
    sys.modules["__main__"] = main
    trace = ",".join([*(options.include or ["*"]), *(f"-{name}" for name in options.exclude)] if options.trace else [])
    settings = {key: value for key, value in (("url", options.url), ("process_name", options.name)) if value}
    if options.children:
        _ask_children(options.url, trace)
    own_trace = os.environ.pop(auto_trace.VARIABLE, "")  # the flags say it for this process
    try:
        begin_automatically(settings)
    except (ValueError, OSError) as error:
        sys.exit(f"micromegas run: {error}")
    finally:
        if own_trace:
            os.environ[auto_trace.VARIABLE] = own_trace
    if trace:
        auto_trace.trace_as_environment_says(trace)
    _leave_us_out_of_tracebacks()
    exec(code, main.__dict__)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m micromegas run",
        usage="%(prog)s [options] app.py [args …]  |  [options] -m module [args …]",
        description="Run a Python program and record it, with a span for every call of its own functions.",
    )
    parser.add_argument("--url", help="the server (else MICROMEGAS_TELEMETRY_URL)")
    parser.add_argument("--name", help="name of the process (else the path of the program)")
    parser.add_argument(
        "--trace", action=argparse.BooleanOptionalAction, default=True, help="spans for every function (default: yes)"
    )
    parser.add_argument("--include", action="extend", type=_names, help="modules to trace (default: the program's own)")
    parser.add_argument("--exclude", action="extend", type=_names, default=[], help="modules not to trace")
    parser.add_argument("--children", action="store_true", help="record Python programs that this one starts, too")
    parser.add_argument("-m", dest="is_module", action="store_true", help="the program is a module")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if not options.program:
        parser.error("no program given")
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class _NotFoundError(Exception):
    pass


def _new_main(file: str | None) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __cached__=None, __file__=file)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    return main


def _script(path: str) -> tuple[ModuleType, CodeType]:
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        sys.path[0] = os.path.abspath(path)
        spec = importlib.machinery.PathFinder.find_spec("__main__", sys.path[:1])
        if spec is None:
            raise _NotFoundError(f"can't find '__main__' module in {path!r}")
        return _of_spec(spec, package="")
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as source:
            text = source.read()
    except OSError as error:
        raise _NotFoundError(f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}") from None
    sys.path[0] = os.path.dirname(file)
    main = _new_main(file)
    main.__dict__.update(
        __spec__=None, __package__=None, __loader__=importlib.machinery.SourceFileLoader("__main__", file)
    )
    return main, compile(text, file, "exec", dont_inherit=True)


def _module(name: str) -> tuple[ModuleType, CodeType]:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise _NotFoundError(f"error while finding module {name!r}: {error}") from None
    if spec is None:
        raise _NotFoundError(f"No module named {name}")
    return _of_spec(spec, package=spec.parent)


def _of_spec(spec: importlib.machinery.ModuleSpec, package: str | None) -> tuple[ModuleType, CodeType]:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code else None
    if not isinstance(code, CodeType):
        raise _NotFoundError(f"No code object available for {spec.name}")
    main = _new_main(spec.origin)
    main.__dict__.update(__spec__=spec, __package__=package, __loader__=spec.loader, __cached__=spec.cached)
    return main, code


def _ask_children(url: str | None, trace: str) -> None:
    """By the environment: recording from the first line on, also where our `.pth` file is not installed."""
    environment = os.environ
    if url:
        environment["MICROMEGAS_TELEMETRY_URL"] = url
    environment[autostart.VARIABLE] = "1"
    if trace:
        environment[auto_trace.VARIABLE] = trace
    paths = [autostart.SITE_FOLDER, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def _leave_us_out_of_tracebacks() -> None:
    inner = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        theirs = traceback
        # From the start of the interpreter down to us, in this order.
        while theirs is not None and theirs.tb_frame.f_code is not run.__code__:
            theirs = theirs.tb_next
        theirs = theirs.tb_next if theirs is not None else traceback
        inner(kind, error.with_traceback(theirs), theirs)

    sys.excepthook = excepthook
