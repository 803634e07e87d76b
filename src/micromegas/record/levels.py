"""Log levels, for the program and for parts of it, and loggers with a target of their own."""

from collections.abc import Mapping

from micromegas import _core

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from micromegas._core import Log

LEVELS = {"off": 0, "fatal": 1, "critical": 1, "error": 2, "warn": 3, "warning": 3, "info": 4, "debug": 5, "trace": 6}
DEFAULT_LEVEL = "debug"
_NOT_IN_TARGETS = frozenset("=;* ")
"""In lists of levels: a target that nobody has would silently leave the levels as they are."""


class _Levels:
    def __init__(self) -> None:
        self.default = LEVELS[DEFAULT_LEVEL]
        self.of_targets: dict[str, int] = {}


_levels = _Levels()
_loggers: dict[str, "Log"] = {}


def level_number(level: str) -> int:
    """0 (off) to 6 (trace). Raises ValueError for a level that does not exist."""
    number = LEVELS.get(level.strip().lower()) if isinstance(level, str) else None
    if number is None:
        raise ValueError(f"log level {level!r}: not one of {', '.join(LEVELS)}")
    return number


def _parsed(levels: str) -> tuple[int | None, dict[str, int]]:
    if not isinstance(levels, str):
        return level_number(levels), {}  # refused
    default, of_targets = None, {}
    for part in levels.split(","):
        target, separator, level = part.rpartition("=")
        if separator and target.strip():
            if not _NOT_IN_TARGETS.isdisjoint(target.strip()):
                raise ValueError(
                    f"log level {part.strip()!r}: not one target, as in 'info,myapp.db=debug,noisy.lib=off'"
                )
            of_targets[target.strip()] = level_number(level)
        elif part.strip():
            default = level_number(part)
    return default, of_targets


def _apply(default: int, of_targets: Mapping[str, int]) -> None:
    filters = tuple((_utf8(target), level) for target, level in of_targets.items())
    _core.set_log_levels(default, filters)
    _levels.default, _levels.of_targets = default, dict(of_targets)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def log_levels() -> tuple[int, Mapping[str, int]]:
    """The levels that hold now, by default and by target, for `restore_log_levels`."""
    return _levels.default, _levels.of_targets


def restore_log_levels(levels: tuple[int, Mapping[str, int]]) -> None:
    """Let the levels hold again that `log_levels` gave."""
    _apply(*levels)


def set_log_levels(levels: str) -> None:
    """Replace all levels by those of a text such as `info,myapp.db=debug,noisy.lib=off`; see `set_log_level`.

    The part without a target is the level of all other targets, `debug` when there is none.
    """
    default, of_targets = _parsed(levels)
    _apply(LEVELS[DEFAULT_LEVEL] if default is None else default, of_targets)


def set_log_level(level: str, target: str | None = None) -> None:
    """Record logs of this level and the more severe ones: `off`, `fatal`, `error`, `warn`, `info`, `debug`, `trace`.

    With a `target`, only for it and what lies below its dots (`myapp` for `myapp.db`, not for `myapplication`); of
    several such levels the one with the longest target holds. Without, for all targets that have none of their own,
    and `level` may be a list as for `MICROMEGAS_LOG`, which adds to what holds already. Takes effect at once.

    Errors: ValueError for a level that does not exist.
    """
    if target is not None:
        _apply(_levels.default, {**_levels.of_targets, target: level_number(level)})
        return
    default, of_targets = _parsed(level)
    _apply(_levels.default if default is None else default, {**_levels.of_targets, **of_targets})


def log_enabled(level: str, target: str) -> bool:
    """Whether a log event of this level and target would be recorded now (`log.is_enabled(level)`: of this module)."""
    return logger(target).is_enabled(level)


def logger(target: str) -> "Log":
    """The log whose events have this target instead of the calling module's name. Equal targets give one object.

    After 16 000 targets all others share the target `micromegas.other_loggers`.
    """
    found = _loggers.get(target)
    if found is None:
        found = _core.make_logger(_utf8(target), False)
        if found is None:
            return _other_loggers
        _loggers[target] = found
    return found


# made now, because later there may be too many
_other_loggers: "Log" = _core.make_logger(b"micromegas.other_loggers", False) or _core.log
