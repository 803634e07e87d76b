"""Levels of log events: their numbers, names as people type them, and how a terminal shows them."""

from __future__ import annotations

from micromegas.cli.errors import UsageError

NAMES = ("FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
STYLES = ("bold red", "red", "yellow", "", "dim", "dim")
_ALSO = {"critical": 1, "warning": 3}


def level_number(text: str) -> int:
    """1 to 6 of a number or a name; raises `UsageError` for what is neither."""
    low = text.strip().lower()
    if low in _ALSO:
        return _ALSO[low]
    for number, name in enumerate(NAMES, 1):
        if low in (str(number), name.lower()):
            return number
    raise UsageError(f"--level {text}: choose one of {', '.join(NAMES).lower()}")


def level_name(number: int) -> str:
    return NAMES[number - 1] if 1 <= number <= len(NAMES) else str(number)


def level_style(number: int) -> str:
    return STYLES[number - 1] if 1 <= number <= len(STYLES) else ""
