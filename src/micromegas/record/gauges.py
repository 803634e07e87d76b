"""Gauges: values that are asked for once per period, by one small thread for all of them.

The thread is there only while there are gauges and the process records; it never keeps the interpreter alive. What a
callback does wrong is told once and counted, never raised.
"""

import atexit
import sys
import threading
from collections.abc import Callable, Mapping

from micromegas import _core
from micromegas.record.metrics import declared_counter, declared_metric
from micromegas.record.session import gauge_period

_PATIENCE_AT_END = 0.2
"""Seconds for a callback that is running when recording ends."""


class Gauge:
    """A value that is asked for once per period, until `close()`. `errors`: how often asking failed."""

    def __init__(self, name: str, ask: Callable[[], object], metric: "_core.Metric", failures: "_core.Counter") -> None:
        self.errors = 0
        self._name = name
        self._ask = ask
        self._metric = metric
        self._failures = failures

    def sample(self) -> None:
        """Ask and record now."""
        try:
            self._metric.record(self._ask())  # type: ignore[arg-type]  # what is no number is refused and counted
        except BaseException as error:
            self.errors += 1
            self._failures.add(1)
            if self.errors == 1:
                _core.log.warn("gauge %s failed (told once, counted in gauge_errors): %r", self._name, error)

    def close(self) -> None:
        """Ask no more."""
        _sampler.remove(self)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Sampled(Protocol):
        """What the thread asks."""

        def sample(self) -> None:
            """Ask and record now; must not raise."""
            ...


class _Sampler:
    """The thread, and what it asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gauges: tuple[Sampled, ...] = ()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def add(self, gauge: "Sampled") -> None:
        with self._lock:
            self._gauges += (gauge,)
            self._begin()

    def remove(self, gauge: "Sampled") -> None:
        with self._lock:
            self._gauges = tuple(other for other in self._gauges if other is not gauge)

    def begin(self) -> None:
        """Recording has begun."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        if self._thread is not None or not self._gauges or _core.recorder_status() is None:
            return
        stop = self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(stop,), name="micromegas-gauges", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread left, or the interpreter ends
            self._thread = None
            _core.log.warn("gauges are not sampled: %s", error)

    def end(self) -> None:
        """Recording ends."""
        with self._lock:
            thread, self._thread = self._thread, None
            if self._stop is not None:
                self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE_AT_END)

    def after_fork(self) -> None:
        """In the child: the thread did not come along, and the lock may be held by it."""
        self._lock = threading.Lock()
        self._thread = None
        self.begin()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for gauge in self._gauges:
                gauge.sample()
            stop.wait(gauge_period())


_sampler = _Sampler()
add = _sampler.add
begin = _sampler.begin
end = _sampler.end
after_fork = _sampler.after_fork
atexit.register(end)


def gauge(
    name: str,
    unit: str,
    ask: Callable[[], float],
    *,
    properties: Mapping[str, object] | None = None,
    target: str | None = None,
) -> Gauge:
    """Record what `ask()` gives, once per `gauge_period` of `init()`, while the process records.

    `mm.gauge("queue", "count", lambda: queue.qsize())`. All gauges are asked by one thread, so `ask` should be quick
    and must not wait. When it raises, that is told once in the log and counted, in `errors` of the result and in the
    counter `gauge_errors`. Closed by `close()` of the result. Other parameters as for `metric`.
    """
    caller = sys._getframe(1)
    made = Gauge(
        str(name),
        ask,
        declared_metric(name, unit, properties, target, caller),
        declared_counter("gauge_errors", "count", {"gauge": name}, target, caller),
    )
    _sampler.add(made)
    return made
