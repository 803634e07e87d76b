"""An engine over the lake of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from micromegas.config import QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    """On each back end."""
    opened = QueryEngine(lake, QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0))
    yield opened
    opened.close()
