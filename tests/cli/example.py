"""A server on the lake of the documentation's examples, for clients that only ask, and what else tests need of
`tools`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.serving import Service, serving

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import grafana_dashboards
from example_lake import IDS, START_NS, example_lake

from micromegas.config import LakeSettings

__all__ = ["IDS", "START_NS", "example_lake", "example_server", "grafana_dashboards"]


@contextmanager
def example_server(folder: Path) -> Iterator[Service]:
    """The address is that of its Flight SQL port."""
    with example_lake(folder):
        pass
    with serving(LakeSettings(lake_dir=folder)) as service:
        yield service
