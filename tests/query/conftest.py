"""An engine over the lake of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from micromegas.config import LakeSettings, QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine

SETTINGS = QuerySettings(memory_bytes=256 * 1024 * 1024, statement_timeout_s=60.0)


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    """On each back end."""
    opened = QueryEngine(lake, SETTINGS)
    yield opened
    opened.close()


@pytest.fixture
def local_lake(tmp_path: Path) -> Iterator[Lake]:
    """The embedded default, where the back end plays no part."""
    with Lake.open(LakeSettings(lake_dir=tmp_path / "local-lake")) as opened:
        yield opened


@pytest.fixture
def local_engine(local_lake: Lake) -> Iterator[QueryEngine]:
    opened = QueryEngine(local_lake, SETTINGS)
    yield opened
    opened.close()
