"""A block with everything that is needed to make rows of it: its process, its stream, its payload and its clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from micromegas.lake import BlockRow, Metadata, ProcessClock, ProcessRow, Rate, StreamRow, clock_of
from micromegas.wire import READABLE_FORMATS


class ClockUnknown(ValueError):
    """Nothing tells the frequency of a process yet; a later block may."""


@dataclass(frozen=True, slots=True)
class BlockSource:
    """One block as the native builders read it.

    Times are ns since the epoch. `begin_ticks` and `end_ticks` are relative to `start_ticks`, events carry the absolute
    counter. `frequency` is in ticks per second and positive, `later_rates` are those of the clock of the process.
    `format` says how the payload is encoded. In blocks of OTLP all ticks are ns since the epoch.
    """

    process_id: str
    stream_id: str
    block_id: str
    insert_time: int
    exe: str
    username: str
    computer: str
    process_properties: dict[str, str]
    start_time: int
    start_ticks: int
    frequency: int
    later_rates: tuple[Rate, ...]
    begin_ticks: int
    end_ticks: int
    begin_time: int
    end_time: int
    nb_objects: int
    object_offset: int
    format: str
    dependencies_metadata: bytes
    objects_metadata: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The processes, streams and clocks behind a set of blocks, read once for all of them."""

    processes: Mapping[str, ProcessRow]
    streams: Mapping[str, StreamRow]
    clocks: Mapping[str, ProcessClock]
    """Without those of processes whose frequency nothing tells."""

    @staticmethod
    def read(metadata: Metadata, blocks: Sequence[BlockRow]) -> BlockContext:
        processes = metadata.processes(_distinct(block.process_id for block in blocks))
        streams = metadata.streams(_distinct(block.stream_id for block in blocks))
        clocks = {process_id: clock_of(process) for process_id, process in processes.items()}
        return BlockContext(
            processes, streams, {process_id: clock for process_id, clock in clocks.items() if clock is not None}
        )

    def source(self, block: BlockRow, payload: bytes) -> BlockSource:
        """The block with its surroundings; `ValueError` when it can't be decoded for want of them, of which
        `ClockUnknown` may pass."""
        process = self.processes.get(block.process_id)
        stream = self.streams.get(block.stream_id)
        if process is None or stream is None:
            raise ValueError(f"block {block.block_id}: its process or stream is not in the lake any more")
        if stream.format not in READABLE_FORMATS:
            raise ValueError(
                f"block {block.block_id} of stream {block.stream_id}: format {stream.format!r} is not known"
            )
        clock = self.clocks.get(block.process_id)
        if clock is None:
            raise ClockUnknown(f"process {block.process_id}: its blocks don't tell the frequency of its clock")
        clock = clock.of_block(block)
        return BlockSource(
            process_id=block.process_id,
            stream_id=block.stream_id,
            block_id=block.block_id,
            insert_time=block.insert_time,
            exe=process.exe,
            username=process.username,
            computer=process.computer,
            process_properties=process.properties,
            start_time=process.start_time,
            start_ticks=process.start_ticks,
            frequency=clock.frequency,
            later_rates=clock.later_rates,
            begin_ticks=block.begin_ticks,
            end_ticks=block.end_ticks,
            begin_time=block.begin_time,
            end_time=block.end_time,
            nb_objects=block.nb_objects,
            object_offset=block.object_offset,
            format=stream.format,
            dependencies_metadata=stream.dependencies_metadata,
            objects_metadata=stream.objects_metadata,
            payload=payload,
        )


def _distinct(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
