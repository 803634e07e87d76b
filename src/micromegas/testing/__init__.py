"""For the tests of instrumented programs: what a piece of code recorded, as values, without a server.

::

    def test_checkout():
        with micromegas.testing.capture() as events:
            checkout(cart)
        assert [log.message for log in events.logs] == ["sold 3 items"]

With pytest, the fixture `micromegas_events` does the same for a whole test. Must never open a connection.
"""

from micromegas.testing.capture import capture
from micromegas.testing.events import AsyncSpan, Events, Log, Measure, Span

__all__ = ["AsyncSpan", "Events", "Log", "Measure", "Span", "capture"]
