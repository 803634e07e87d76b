"""What an instrument has recorded per set of attributes: a metric of ours each, in bounded number."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from micromegas.record.otel.attributes import properties_of

MOST_SETS = 2000
"""Sets of attributes per instrument, as in OpenTelemetry's SDKs; what is beyond shares one."""
OVERFLOW = {"otel.metric.overflow": "true"}

T = TypeVar("T")


class Series(Generic[T]):
    """Makes one `T` per set of attributes."""

    def __init__(self, make: Callable[[dict[str, str]], T]) -> None:
        self._make = make
        self._known: dict[Any, T] = {}
        self._overflow: T | None = None
        self._lock = threading.Lock()

    def of(self, attributes: Mapping[str, Any] | None) -> T:
        """The one for these attributes."""
        key = _key(attributes)
        found = self._known.get(key)
        if found is not None:
            return found
        with self._lock:
            if key in self._known:
                return self._known[key]
            if len(self._known) < MOST_SETS:
                return self._known.setdefault(key, self._make(properties_of(attributes)))
            if self._overflow is None:
                self._overflow = self._make(OVERFLOW)
            return self._overflow


def _key(attributes: Mapping[str, Any] | None) -> object:
    if not attributes:
        return None
    try:
        # with the type: 1, 1.0 and True are equal, but not as texts
        return frozenset((name, value, value.__class__) for name, value in attributes.items())
    except TypeError:  # a sequence among the values
        return tuple(sorted(properties_of(attributes).items()))
