"""What is committed together, and the face of whoever commits it. It must never hold a connection or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from micromegas.wire.block import Block
from micromegas.wire.process import Process
from micromegas.wire.stream import Stream


@dataclass(frozen=True, slots=True)
class Batch:
    """Announcements and blocks of any number of processes, in order of arrival within each kind."""

    processes: Sequence[Process] = field(default=())
    streams: Sequence[Stream] = field(default=())
    blocks: Sequence[Block] = field(default=())


class SinkUnavailable(Exception):
    """A store that a sink needs does not answer now: the same batch may be committed later."""


class BatchSink(Protocol):
    """Where ingested batches go (the lake; in tests anything of this shape). Called from several threads at once."""

    @property
    def advised_lanes(self) -> int:
        """How many commits in flight at once serve this sink best."""
        ...

    def commit(self, batch: Batch) -> None:
        """Return when everything of the batch is durable; a repeated id is a success that changes nothing.

        Raises `SinkUnavailable` when nothing of the batch may be taken as stored and a later try can succeed.
        """
