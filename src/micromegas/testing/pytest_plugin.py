"""The pytest fixture `micromegas_events`. Loaded by pytest itself wherever the package is installed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from micromegas.testing.events import Events


@pytest.fixture
def micromegas_events() -> Iterator["Events"]:
    """What the test records: `.logs`, `.metrics`, `.spans`, `.async_spans`."""
    from micromegas.testing.capture import capture  # here: most tests don't use it

    with capture() as events:
        yield events
