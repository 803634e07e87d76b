"""Meters: who makes instruments, and has the observable ones asked."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from opentelemetry import metrics

from micromegas.record import gauges
from micromegas.record.otel.instruments import (
    Callback,
    Counter,
    Gauge,
    Histogram,
    Observable,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from micromegas.record.otel.scope import Scope

AnyObservable = TypeVar("AnyObservable", bound=Observable)


class MeterProvider(metrics.MeterProvider):
    """Gives meters. Observable instruments are asked together with gauges, every `gauge_period` of `init()`."""

    def __init__(self) -> None:
        self._observables: list[Observable] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "Meter":
        return Meter(name, version, schema_url, attributes, self._watch)

    def observe(self) -> None:
        """Ask all observable instruments now."""
        for instrument in list(self._observables):
            instrument.sample()

    def _after_fork(self) -> None:
        for instrument in self._observables:
            instrument.after_fork()

    def _watch(self, instrument: Observable) -> None:
        self._observables.append(instrument)
        gauges.add(instrument)


class Meter(metrics.Meter):
    """Makes instruments in the name of one scope."""

    def __init__(
        self,
        name: str,
        version: str | None,
        schema_url: str | None,
        attributes: Mapping[str, Any] | None,
        watch: Callable[[Observable], None],
    ) -> None:
        super().__init__(name, version, schema_url)
        self._scope = Scope(name, version, attributes)
        self._watch = watch

    def _watched(self, instrument: AnyObservable) -> AnyObservable:
        self._watch(instrument)
        return instrument

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        return Counter(self._scope, name, unit)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> UpDownCounter:
        return UpDownCounter(self._scope, name, unit)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Histogram:
        return Histogram(self._scope, name, unit)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Gauge:
        return Gauge(self._scope, name, unit)

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> ObservableCounter:
        return self._watched(ObservableCounter(self._scope, name, unit, callbacks))

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> ObservableGauge:
        return self._watched(ObservableGauge(self._scope, name, unit, callbacks))

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> ObservableUpDownCounter:
        return self._watched(ObservableUpDownCounter(self._scope, name, unit, callbacks))
