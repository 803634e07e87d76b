"""A recording of a real sender, committed to a lake without a server between."""

from __future__ import annotations

from e2e.recordings import Recording, recording

from micromegas.lake import Lake
from micromegas.wire import Batch, Block, Process, Stream


def commit_recording(lake: Lake, name: str) -> Recording:
    """Everything that the scenario's sender sent, in one batch."""
    recorded = recording(name)
    batch = Batch([], [], [])
    for request in recorded.requests:
        match request.path.rsplit("/", 1)[1]:
            case "insert_process":
                batch.processes.append(Process.decode(request.body))
            case "insert_stream":
                batch.streams.append(Stream.decode(request.body))
            case "insert_block":
                batch.blocks.append(Block.decode(request.body))
    lake.commit(batch)
    return recorded


def process_of(recorded: Recording) -> str:
    """The only process of a recording."""
    (process_id,) = recorded.processes
    return process_id
