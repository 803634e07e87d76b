"""Recorded traffic, and replicas of it that look like other processes at other times."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from pathlib import Path

from micromegas.wire import Batch, Block, Process, Stream

# Replicas follow each other with gaps, so that neither times nor ids repeat.
_SHIFT_NS = 60_000_000_000
_NAMESPACE = uuid.UUID("8b0b3c1e-7d53-4b9e-9b43-2f6a30d0c7a5")


def load_scenario(folder: Path) -> Batch:
    """The requests of a recorded scenario."""
    processes, streams, blocks = [], [], []
    for path in sorted(folder.glob("*.cbor")):
        body = path.read_bytes()
        if "insert_process" in path.name:
            processes.append(Process.decode(body))
        elif "insert_stream" in path.name:
            streams.append(Stream.decode(body))
        elif "insert_block" in path.name:
            blocks.append(Block.decode(body))
    return Batch(processes, streams, blocks)


@dataclass(frozen=True, slots=True)
class Replica:
    """A copy of a batch with ids of its own, shifted in time. The payloads hold counters only and stay as they are."""

    number: int

    def of(self, batch: Batch) -> Batch:
        shift = (self.number + 1) * _SHIFT_NS
        return Batch(
            [
                dataclasses.replace(
                    each,
                    process_id=self._id(each.process_id),
                    start_time=each.start_time + shift,
                    exe=f"{each.exe}-{self.number}",
                )
                for each in batch.processes
            ],
            [
                dataclasses.replace(each, process_id=self._id(each.process_id), stream_id=self._id(each.stream_id))
                for each in batch.streams
            ],
            [
                dataclasses.replace(
                    each,
                    block_id=self._id(each.block_id),
                    process_id=self._id(each.process_id),
                    stream_id=self._id(each.stream_id),
                    begin_time=each.begin_time + shift,
                    end_time=each.end_time + shift,
                )
                for each in batch.blocks
            ],
        )

    def _id(self, original: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{self.number}/{original}"))
