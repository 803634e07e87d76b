"""Takes in what a program logs through the standard library's `logging`, and lends its loggers our speed.

Records are taken where every logger passes them on (`Logger.callHandlers`), not by a handler in a list: so no later
configuration can drop us, loggers that don't propagate are heard, and `logging.basicConfig()` still finds the root
logger without handlers. Must never take a lock of `logging`, and never change what the program's own handlers print.
"""

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from micromegas import _core
from micromegas.record.after_import import AfterImport
from micromegas.record.failures import is_catching
from micromegas.record.levels import LEVELS

_STANDARD_LEVELS = ((50, "fatal"), (40, "error"), (30, "warn"), (20, "info"), (10, "debug"))
_METHODS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "warn": "warning",
    "error": "error",
    "exception": "exception",
    "critical": "critical",
    "fatal": "critical",
}


class _State:
    """What was changed in `logging`, to be changed back."""

    def __init__(self) -> None:
        self.original: Any = None
        self.silenced: set[str] = set()
        """Loggers that a configuration has disabled: recorded, and kept from the program's handlers."""
        self.watched = False
        self.ids_of_span: Callable[[], Mapping[str, str]] | None = None
        self.rebound: dict[str, tuple[logging.Logger, Any]] = {}


_state = _State()


class Handler(logging.Handler):
    """Records what reaches it, for those who want to choose which loggers are recorded: `logger.addHandler(Handler())`.

    Target: the logger's name. Place: where the program logged. Fields of `extra` become properties, an exception's
    traceback and a stack follow the message. Does nothing while `install_logging` holds, which records everything.
    """

    def handle(self, record: logging.LogRecord) -> Any:
        """Without the lock that handlers usually take: there is nothing to protect."""
        if _state.original is None and (not self.filters or self.filter(record)):
            _record_with({} if _state.ids_of_span is None else _state.ids_of_span(), record)
        return True

    emit = handle


def install_logging(levels: Mapping[int, str] | None = None) -> None:
    """Record all that the program logs through `logging` from now on, whatever configuration comes before or after.

    The level of an event is that of its number: 50 and more is fatal, 40 error, 30 warn, 20 info, 10 debug, less trace;
    `levels` maps single numbers otherwise (`{25: "warn"}`). Which records are made is decided by the loggers' levels,
    as ever; then ours apply (`set_log_level`, by the logger's name). A logger that a configuration disabled because it
    does not name it (`disable_existing_loggers`) is recorded on, but prints nothing; one that the program disabled
    itself is not. Again: only `levels` is taken over.

    Errors: ValueError for a level that does not exist.
    """
    wanted = {}
    for number, name in (levels or {}).items():
        if name not in LEVELS or name == "off":
            raise ValueError(f"log level {name!r}: not one of {', '.join(LEVELS)}")
        wanted[number] = LEVELS[name]
    _set_levels(wanted)
    if _state.original is not None:
        return
    original = _state.original = logging.Logger.callHandlers
    record_one, silenced = _core.record_logging, _state.silenced

    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:
        if record.funcName != "default_exception_handler" or not is_catching() or record.name != "asyncio":
            # else it has been told already, with its task
            if _state.ids_of_span is None:
                record_one(record)
            else:
                _record_with(_state.ids_of_span(), record)
        if silenced and self.name in silenced:
            return
        original(self, record)

    logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]
    if not _state.watched:
        _state.watched = True
        AfterImport("logging.config", _watch_configurations)


def is_installed() -> bool:
    """Whether all that goes through `logging` is recorded."""
    return _state.original is not None


def name_spans_by(ids_of_span: Callable[[], Mapping[str, str]]) -> None:
    """From now on events get the properties that this function gives, none outside of spans."""
    _state.ids_of_span = ids_of_span


def _record_with(properties: Mapping[str, str], record: logging.LogRecord) -> None:
    """As if they were `extra`, but for us alone: what the program's handlers print stays the same."""
    fields = record.__dict__
    added = [name for name in properties if name not in fields]
    for name in added:
        fields[name] = properties[name]
    try:
        _core.record_logging(record)
    finally:
        for name in added:
            del fields[name]


def _set_levels(levels: dict[int, int]) -> None:
    plain = logging.LogRecord("", 0, "", 0, "", (), None).__dict__
    _core.set_logging(frozenset(plain) | {"message", "asctime", "taskName"}, len(plain), levels)


_set_levels({})


def uninstall_logging() -> None:
    """Leave `logging` as it was found."""
    if _state.original is not None:
        logging.Logger.callHandlers = _state.original  # type: ignore[method-assign]
        _state.original = None
    for name in list(_state.silenced):
        logging.getLogger(name).disabled = True
    _state.silenced.clear()
    for logger, _ in list(_state.rebound.values()):
        restore_logger(logger)


def _watch_configurations(config: ModuleType) -> None:
    """To know which loggers a configuration disables."""
    disable = vars(config)["_handle_existing_loggers"]

    def handle_existing_loggers(existing: Any, child_loggers: Any, disable_existing: Any) -> None:
        disable(existing, child_loggers, disable_existing)
        if _state.original is None:
            return
        _state.silenced.clear()
        for name in existing:
            logger = logging.root.manager.loggerDict.get(name)
            if isinstance(logger, logging.Logger) and logger.disabled:
                _state.silenced.add(name)
                logger.disabled = False

    vars(config)["_handle_existing_loggers"] = handle_existing_loggers


# ---- rebound methods


def rebind_logger(logger: logging.Logger | str) -> logging.Logger:
    """Replace `debug` … `critical` of one logger by ours: as cheap as `micromegas.log`, and no `LogRecord` is made.

    Levels hold as before: of the logger, of those above it, of `logging.disable`, also when they change later. The
    price: handlers and filters of `logging` don't see these events (not even the console), and `stacklevel` has no
    effect. `log()`, `handle()` and `makeRecord()` are untouched. `restore_logger` undoes it.
    """
    if isinstance(logger, str):
        logger = logging.getLogger(logger)
    if logger.name not in _state.rebound:
        native = _core.make_logger(logger.name.encode("utf-8", "backslashreplace"), True)
        if native is None:
            return logger  # too many loggers: this one stays as it is
        _state.rebound[logger.name] = (logger, native)
        _follow_levels(logger.manager)
        for name, ours in _METHODS.items():
            setattr(logger, name, getattr(native, ours))
    _set_limit(*_state.rebound[logger.name])
    return logger


def restore_logger(logger: logging.Logger | str) -> None:
    """Give a rebound logger its own methods back."""
    name = logger if isinstance(logger, str) else logger.name
    found = _state.rebound.pop(name, None)
    if found is not None:
        for method in _METHODS:
            vars(found[0]).pop(method, None)


def _set_limit(logger: logging.Logger, native: Any) -> None:
    """As `isEnabledFor`, without its cache, and its lock."""
    least = max(logger.getEffectiveLevel(), logger.manager.disable + 1)
    enabled = [LEVELS[name] for number, name in _STANDARD_LEVELS if number >= least and not logger.disabled]
    native._set_limit(max(enabled, default=0))


def _follow_levels(manager: logging.Manager) -> None:
    """`logging` clears the caches of its loggers whenever a level changes: the one place that hears of all of them."""
    if "_clear_cache" in vars(manager):
        return
    clear = manager._clear_cache  # type: ignore[attr-defined]

    def clear_cache() -> None:
        clear()
        for logger, native in list(_state.rebound.values()):
            _set_limit(logger, native)

    manager._clear_cache = clear_cache  # type: ignore[attr-defined]
