"""Lakes that live as long as a test module: starting servers is what costs time here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.serving import Service, serving
from servers.lakes import LAKE_BACKENDS, local_or_remote_lake

from micromegas.config import LakeSettings


@pytest.fixture(scope="module", params=LAKE_BACKENDS)
def module_lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeSettings]:
    """Settings of an empty lake on each back end, shared by the tests of a module."""
    with local_or_remote_lake(request.param, tmp_path_factory.mktemp("module"), request) as settings:
        yield settings


@pytest.fixture
def folder_lake(tmp_path: Path) -> LakeSettings:
    """Settings of an empty lake on the embedded default."""
    return LakeSettings(lake_dir=tmp_path / "lake")


@pytest.fixture(scope="module")
def service(module_lake: LakeSettings) -> Iterator[Service]:
    """A server on each back end, shared by the tests of a module."""
    with serving(module_lake) as started:
        yield started
