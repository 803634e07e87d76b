"""The instruments of OpenTelemetry. All record measures; counters record what was added since the last one."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import metrics
from opentelemetry.context.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from micromegas import _core
from micromegas.record.metrics import counter, metric
from micromegas.record.otel.series import Series

if TYPE_CHECKING:
    from micromegas._core import Metric
    from micromegas.record.otel.scope import Scope

Number: TypeAlias = int | float
Attributes: TypeAlias = Mapping[str, Any] | None
Callback: TypeAlias = (
    Callable[[CallbackOptions], Iterable[Observation]] | Generator[Iterable[Observation], CallbackOptions, None]
)


class _Named:
    """What every instrument has."""

    def __init__(self, scope: "Scope", name: str, unit: str) -> None:
        self.scope = scope
        self.name = str(name)
        self.unit = str(unit or "")

    def new_metric(self, properties: Mapping[str, str]) -> "Metric":
        return metric(self.name, self.unit, properties=properties, target=self.scope.name)

    def new_counter(self, properties: Mapping[str, str]) -> "_core.Counter":
        return counter(self.name, self.unit, properties=properties, target=self.scope.name)


class Counter(_Named, metrics.Counter):
    """Adds up; negative amounts are refused."""

    def __init__(self, scope: "Scope", name: str, unit: str) -> None:
        _Named.__init__(self, scope, name, unit)
        self._series = Series(self.new_counter)
        self._has_refused = False

    def add(self, amount: Number, attributes: Attributes = None, context: Context | None = None) -> None:
        if amount < 0:
            if not self._has_refused:
                self._has_refused = True
                self.scope.log.warn("counter %s: a negative amount is not added; further ones are not told", self.name)
            return
        self._series.of(attributes).add(amount)


class _Total:
    """The running total of an up-down counter."""

    def __init__(self, recorder: "Metric") -> None:
        self._metric = recorder
        self._total: Number = 0
        self._lock = threading.Lock()

    def add(self, amount: Number) -> None:
        with self._lock:
            self._total += amount
            self._metric.record(self._total)


class UpDownCounter(_Named, metrics.UpDownCounter):
    """Records its new total each time it changes."""

    def __init__(self, scope: "Scope", name: str, unit: str) -> None:
        _Named.__init__(self, scope, name, unit)
        self._series = Series(lambda properties: _Total(self.new_metric(properties)))

    def add(self, amount: Number, attributes: Attributes = None, context: Context | None = None) -> None:
        self._series.of(attributes).add(amount)


class Histogram(_Named, metrics.Histogram):
    """Records every value: `make_histogram` of SQL chooses the bounds when somebody asks."""

    def __init__(self, scope: "Scope", name: str, unit: str) -> None:
        _Named.__init__(self, scope, name, unit)
        self._series = Series(self.new_metric)

    def record(self, amount: Number, attributes: Attributes = None, context: Context | None = None) -> None:
        self._series.of(attributes).record(amount)


class Gauge(_Named, metrics._Gauge):
    """Records every value that it is set to."""

    def __init__(self, scope: "Scope", name: str, unit: str) -> None:
        _Named.__init__(self, scope, name, unit)
        self._series = Series(self.new_metric)

    def set(self, amount: Number, attributes: Attributes = None, context: Context | None = None) -> None:
        self._series.of(attributes).record(amount)


class Observable(_Named, ABC):
    """Asks its callbacks when it is told to."""

    def __init__(self, scope: "Scope", name: str, unit: str, callbacks: Sequence[Callback] | None) -> None:
        super().__init__(scope, name, unit)
        self._callbacks = [_asked(callback) for callback in callbacks or ()]
        self._lock = threading.Lock()
        self._has_failed = False

    def sample(self) -> None:
        """Record what the callbacks give now. Never raises: the first failure is told in the log."""
        with self._lock:  # a generator can't be asked by two threads at once
            for callback in self._callbacks:
                try:
                    for observation in callback(CallbackOptions()):
                        self.take(observation.value, observation.attributes)
                except Exception as error:
                    if not self._has_failed:
                        self._has_failed = True
                        self.scope.log.warn(
                            "observable %s: a callback failed; further failures are not told", self.name, exc_info=error
                        )

    def after_fork(self) -> None:
        """In the child: the lock may be held by a thread that did not come along."""
        self._lock = threading.Lock()

    @abstractmethod
    def take(self, value: Number, attributes: Attributes) -> None:
        """Record one observation."""


def _asked(callback: Callback) -> Callable[[CallbackOptions], Iterable[Observation]]:
    if not isinstance(callback, Generator):
        return callback
    next(callback)  # the API's contract: it waits for options at its first yield
    return callback.send


class ObservableGauge(Observable, metrics.ObservableGauge):
    """Records what it observes."""

    def __init__(self, scope: "Scope", name: str, unit: str, callbacks: Sequence[Callback] | None) -> None:
        Observable.__init__(self, scope, name, unit, callbacks)
        self._series = Series(self.new_metric)

    def take(self, value: Number, attributes: Attributes) -> None:
        self._series.of(attributes).record(value)


class ObservableUpDownCounter(ObservableGauge, metrics.ObservableUpDownCounter):
    """Records the totals that it observes."""


class _Difference:
    """What an observed total has grown by."""

    def __init__(self, recorder: "Metric") -> None:
        self._metric = recorder
        self._last: Number = 0

    def observe(self, total: Number) -> None:
        grown = total - self._last if total >= self._last else total  # it began anew
        self._last = total
        if grown:
            self._metric.record(grown)


class ObservableCounter(Observable, metrics.ObservableCounter):
    """Records what the observed total has grown by, so that `sum(value)` is right as for a counter."""

    def __init__(self, scope: "Scope", name: str, unit: str, callbacks: Sequence[Callback] | None) -> None:
        Observable.__init__(self, scope, name, unit, callbacks)
        self._series = Series(lambda properties: _Difference(self.new_metric(properties)))

    def take(self, value: Number, attributes: Attributes) -> None:
        self._series.of(attributes).observe(value)
