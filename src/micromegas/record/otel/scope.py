"""An instrumentation scope: the library or module that a tracer, meter or logger speaks for. Its name is our target."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from micromegas import _core
from micromegas.record.levels import logger
from micromegas.record.otel.attributes import properties_of

if TYPE_CHECKING:
    from micromegas._core import Log, Span


class Scope:
    """Name, version and attributes of a scope, and what is recorded in its name."""

    def __init__(
        self, name: str | None, version: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.name = str(name or "opentelemetry")
        self.log: Log = logger(self.name)
        self.place: Span = _core.make_span("", self.name.encode("utf-8", "backslashreplace"), b"", 0)
        """Where spans come from; each has a name of its own."""
        self.properties = properties_of(attributes)
        if version:
            self.properties["scope.version"] = str(version)
