"""Our place among the tools of `sys.monitoring` (3.12 on). Must never take the place of another tool."""

from __future__ import annotations

import sys
from types import CodeType

from micromegas import _core

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

_NAME = "micromegas"
_WANTED = (4, 3)
"""Ids without a meaning of their own; the others are for debuggers, coverage, profilers and optimizers."""


class Tool:
    """Our tool id and what it listens to."""

    def __init__(self) -> None:
        self.id: int | None = None
        self.automatic = False

    def acquire(self) -> bool:
        """Whether calls can be monitored: there is an interpreter that can, and an id is ours."""
        if sys.version_info < (3, 12):
            return False
        monitoring: Any = sys.monitoring
        if self.id is not None:
            # Another tool may have freed or taken it, by mistake or by force.
            return bool(monitoring.get_tool(self.id) == _NAME)
        for tool_id in _WANTED:
            if monitoring.get_tool(tool_id) is None:
                monitoring.use_tool_id(tool_id, _NAME)
                self.id = tool_id
                break
        else:
            return False
        events = monitoring.events
        begin, end, throw, unwind = _core.monitoring_callbacks(monitoring.DISABLE)
        for event, callback in (
            (events.PY_START, begin),
            (events.PY_RESUME, begin),
            (events.PY_RETURN, end),
            (events.PY_YIELD, end),
            (events.PY_THROW, throw),
            (events.PY_UNWIND, unwind),
        ):
            monitoring.register_callback(self.id, event, callback)
        self._listen()
        return True

    def watch(self, code: CodeType) -> None:
        """Hear of the calls of this code alone. (The end of one that raises can only be heard of for all code.)"""
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        monitoring.set_local_events(self.id, code, monitoring.events.PY_START | monitoring.events.PY_RETURN)

    def watch_all(self, automatic: bool) -> None:
        """Hear of the calls of all code, or no longer."""
        self.automatic = automatic
        self._listen()
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        monitoring.restart_events()  # code that was left out before is asked about again

    def _listen(self) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        events = monitoring.events
        wanted = events.PY_UNWIND
        if self.automatic:
            wanted |= events.PY_START | events.PY_RETURN | events.PY_YIELD | events.PY_RESUME | events.PY_THROW
        monitoring.set_events(self.id, wanted)


tool = Tool()
