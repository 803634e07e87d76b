"""What the interpreter does to a program: pauses of the garbage collector, and how late an event loop is.

Both begin when asked to and end with the recording, or by `close()` of what they give.
"""

import contextlib
import gc
import sys
from abc import ABC, abstractmethod

from micromegas import _core
from micromegas.record.metrics import declared_metric

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

TARGET = "micromegas.interpreter"
GENERATIONS = 3
LOOP_PERIOD = 0.1


class Monitor(ABC):
    """Something that is watched until `close()`, or until recording ends."""

    def __init__(self) -> None:
        _open.append(self)

    def close(self) -> None:
        """Watch no more."""
        if self in _open:
            _open.remove(self)
            self._end()

    @abstractmethod
    def _end(self) -> None:
        """Takes out of the interpreter what was put into it."""


_open: list[Monitor] = []


def begin() -> None:
    """Recording has begun: what is to be watched is asked for anew."""


def after_fork() -> None:
    """In the child the collector's callback goes on; the parent's event loops do not run here."""
    _open[:] = [monitor for monitor in _open if isinstance(monitor, _GcMonitor)]


def end() -> None:
    """Recording ends."""
    for monitor in list(_open):
        monitor.close()


class _GcMonitor(Monitor):
    def __init__(self) -> None:
        super().__init__()
        frame = sys._getframe()
        metrics = [
            declared_metric("gc_pause", "ns", {"generation": generation}, TARGET, frame)
            for generation in range(GENERATIONS)
        ]
        self._callback = _core.make_gc_callback(tuple(metrics))
        gc.callbacks.append(self._callback)

    def _end(self) -> None:
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)


class _LoopMonitor(Monitor):
    def __init__(self, loop: "asyncio.AbstractEventLoop", period: float) -> None:
        super().__init__()
        self._loop = loop
        self._period = period
        self._lag = declared_metric("event_loop_lag", "ms", None, TARGET, sys._getframe())
        self._is_open = True
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._is_open:
            self._due = self._loop.time() + self._period
            self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._lag.record(max(0.0, (self._loop.time() - self._due) * 1000.0))
        self._begin()

    def _end(self) -> None:
        self._is_open = False
        timer, self._timer = self._timer, None
        if timer is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed in between
                self._loop.call_soon_threadsafe(timer.cancel)


def monitor_gc() -> Monitor:
    """Record every pause of the garbage collector: metric `gc_pause` in ns, by its property `generation` (0, 1, 2).

    A pause costs two calls of a C function. Ends with the recording, or by `close()` of the result; a forked child goes
    on. A second monitor would record each pause twice, so there is one: asked for again, it is given again.
    """
    for monitor in _open:
        if isinstance(monitor, _GcMonitor):
            return monitor
    return _GcMonitor()


def monitor_loop(loop: "asyncio.AbstractEventLoop | None" = None, *, period: float = LOOP_PERIOD) -> Monitor:
    """Record how late an event loop calls what is due: metric `event_loop_lag` in ms, once per `period` seconds.

    `loop`: the running one unless given. A callback that blocks the loop for a second shows as one measure of about a
    thousand. Ends with the loop, with the recording, or by `close()` of the result.
    Errors: RuntimeError without a running loop; ValueError for a period that is not above 0.
    """
    if not period > 0:
        raise ValueError(f"loop monitor period of {period} s: not above 0")
    if loop is None:
        import asyncio

        loop = asyncio.get_running_loop()
    return _LoopMonitor(loop, period)
