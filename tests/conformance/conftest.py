"""The made world in a running server: on each back end, before and after the daemon has made partitions of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from conformance.world import World, made_world
from e2e.answers import know_clocks
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import Recording, recording
from e2e.reference import ProcessReference, processes_of
from e2e.serving import Service, serving, wait_until_materialized
from servers.lakes import LAKE_BACKENDS, local_or_remote_lake

from micromegas.client import Client
from micromegas.lake import Lake

SEED = 20261123
RECORDINGS = ("images", "unreal_synth")
Range = tuple[int, int]
"""Begin and end of a query range, ns since the epoch, both inclusive."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that holds the world and the recordings."""

    world: World = field(repr=False)
    recordings: list[Recording] = field(repr=False)
    processes: dict[str, ProcessReference] = field(repr=False)
    """Those of the recordings."""

    state: str
    client: Client
    preserving: Client = field(repr=False)
    """A client that wants dictionaries as they are."""

    def table(self, sql: str, within: Range | None = None, limit: int | None = None) -> pa.Table:
        """The answer to a statement, with a range in the headers when one is given."""
        begin, end = within or (None, None)
        return self.client.query(sql, begin, end, limit)

    def rows(self, sql: str, within: Range | None = None, limit: int | None = None) -> list[tuple[Any, ...]]:
        """Its rows, times and durations as ns."""
        return [tuple(row) for row in zip(*map(_plain, self.table(sql, within, limit).columns), strict=True)]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        assert column.type.unit == "ns"
        column = column.cast(pa.int64())
    return list(column.to_pylist())


@pytest.fixture(
    scope="session",
    params=[(lake, state) for lake in LAKE_BACKENDS for state in ("tail", "partitions")],
    ids="-".join,
)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """`tail`: no daemon has run; `partitions`: it has put every block into a partition."""
    backend, state = request.param
    with ExitStack() as stack:
        settings = stack.enter_context(local_or_remote_lake(backend, tmp_path_factory.mktemp("world"), request))
        ingest: Service
        if state == "tail":
            ingest = stack.enter_context(serving(settings, "ingest"))
            service = stack.enter_context(serving(settings, "query-server"))
        else:
            ingest = service = stack.enter_context(serving(settings))
        world, recordings = made_world(SEED), [recording(name) for name in RECORDINGS]
        requests = world.requests + [request for each in recordings for request in each.requests]
        assert_all_accepted(requests, post_all(ingest.http_port, requests))
        if state == "partitions":
            wait_until_materialized(service)
        address = f"grpc://127.0.0.1:{service.flight_port}"
        client = stack.enter_context(Client(address))
        preserving = stack.enter_context(Client(address, preserve_dictionary=True))
        processes = processes_of(recordings)
        with Lake.open(settings) as lake:
            know_clocks(lake.metadata, processes)
        yield Asked(world, recordings, processes, state, client, preserving)
