"""Takes in what the program is warned of through `warnings`."""

import warnings
from typing import Any, TextIO

from micromegas import _core
from micromegas.record.levels import LEVELS

TARGET = "py.warnings"


class _State:
    def __init__(self) -> None:
        self.original: Any = None


_state = _State()


def capture_warnings() -> None:
    """Record every warning that is shown, as a log event of level `warn` and target `py.warnings`; it is shown as well.

    The place is that of the warning, the property `category` its class. Filters of `warnings` decide what is shown.
    `logging.captureWarnings(True)` leads warnings to `logging` instead; `install_logging` then records them from there.
    """
    if _state.original is not None:
        return
    original = _state.original = warnings.showwarning

    def showwarning(  # noqa: PLR0917 - the signature that `warnings` calls
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is None:  # else it is not shown to the user but written for somebody
            name = getattr(category, "__name__", "Warning")
            _core.record_log(
                LEVELS["warn"], TARGET, str(filename), int(lineno), message, (), {"category": str(name)}, None
            )
        original(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning


def release_warnings() -> None:
    """Undo `capture_warnings`, unless somebody else has taken its place since."""
    if _state.original is not None and getattr(warnings.showwarning, "__module__", "") == __name__:
        warnings.showwarning = _state.original
    _state.original = None
