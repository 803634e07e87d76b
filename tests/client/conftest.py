"""A running all-in-one server that holds recorded traffic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import Service, serving

from micromegas.config import LakeSettings

SCENARIOS = ("tiny", "logs", "spans")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("client") / "lake")) as running:
        for name in SCENARIOS:
            requests = recording(name).requests
            assert_all_accepted(requests, post_all(running.http_port, requests))
        yield running


@pytest.fixture(scope="session")
def address(service: Service) -> str:
    return f"grpc://127.0.0.1:{service.flight_port}"
